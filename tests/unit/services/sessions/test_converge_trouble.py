"""Sessions in trouble: Docker, agents or sandboxes fail, or other workers interfere."""

from __future__ import annotations

import pytest

from orchestrator.contract.wire import FAILURE_MAX_CHARS
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import HISTORY_MAX, Phase, Session, SessionState
from orchestrator.services.agents import bundles, inbox
from orchestrator.services.pool import host_life, refill
from orchestrator.services.sessions import starts
from tests.fakes import samples
from tests.fakes.engine import EngineThatIsDown, EngineThatRefuses
from tests.unit.services.world import World, bundle_of


def fail_every_attempt(world: World, session: Session, *, permanent: bool) -> Session:
    """Let the agent of every attempt report a failure."""
    for _ in range(5):
        if world.session(session).ended:
            break
        world.add_warm_sandbox()
        world.converge(session)
        world.report_failure(session, permanent=permanent)
        world.converge(session)
        world.publish()
        world.clear()
        world.clock.jump_to(world.session(session).due_at)
    return world.session(session)


def test_three_attempts_with_temporary_failures_fail_the_session(world: World) -> None:
    world.add_host()
    failed = fail_every_attempt(world, world.create_session(), permanent=False)
    assert (failed.state, failed.attempt) == (SessionState.FAILED, 3)
    assert failed.failure is not None
    assert failed.failure.code == "app_not_ready"
    assert world.history(failed) == (
        "queued provisioning queued provisioning queued provisioning failed"
    )
    assert len(world.engine.removed) == 3


def test_a_permanent_failure_is_not_tried_again(world: World) -> None:
    world.add_host()
    failed = fail_every_attempt(world, world.create_session(), permanent=True)
    assert (failed.state, failed.attempt) == (SessionState.FAILED, 1)
    assert failed.sandbox_id is None
    assert world.sandboxes() == []


def test_the_backoff_between_attempts_doubles(world: World) -> None:
    world.add_host()
    session = world.create_session()
    pauses = []
    for _ in range(2):
        world.add_warm_sandbox()
        world.converge(session)
        world.report_failure(session, permanent=False)
        assert world.converge(session).steps == ("Fail", "Abandon", "Requeue", "Wait")
        assert world.session(session).state is SessionState.QUEUED
        current = world.session(session)
        assert (current.sandbox_id, current.report, current.failure) == (None, None, None)
        assert current.deadline_at is None
        pauses.append((current.due_at - world.clock.now()).total_seconds())
        assert world.converge(session).steps == ("Wait",)
        world.clock.jump_to(current.due_at)
    assert pauses == [1.0, 2.0]


def test_a_sandbox_that_docker_refuses_counts_as_an_attempt(world: World) -> None:
    world.add_host()
    world.engine = EngineThatRefuses("create_failed")
    session = world.create_session()
    world.converge(session)
    world.start_placed()
    current = world.session(session)
    assert current.failure is not None
    assert (current.failure.code, current.failure.permanent) == ("create_failed", False)
    assert world.queue.nudged[-1] == session.id
    failed = world.settle(session, rounds=9)
    assert (failed.state, failed.attempt) == (SessionState.FAILED, 3)


def test_a_session_is_requeued_without_counting_an_attempt_if_the_engine_is_down(
    world: World,
) -> None:
    host = world.add_host()
    world.engine = engine = EngineThatIsDown()
    session = world.create_session()
    assert world.converge(session).steps == ("Claim",)
    world.start_placed()
    assert world.store.hosts.get(host.id).state is HostState.SUSPECT
    assert world.queue.nudged[-1] == session.id
    assert world.converge(session).steps == ("Abandon", "Requeue", "Claim")
    requeued = world.session(session)
    assert (requeued.state, requeued.attempt) == (SessionState.QUEUED, 1)
    assert (requeued.sandbox_id, requeued.failure) == (None, None)
    assert requeued.due_at <= world.clock.now()
    (sandbox,) = world.sandboxes()
    assert (sandbox.state, sandbox.session_id) == (SandboxState.STOPPING, None)

    engine.down = False
    host_life.admit(world.deps, world.fleet, world.store.hosts.get(host.id))
    assert world.settle(session, rounds=2).state is SessionState.PROVISIONING
    assert world.session(session).attempt == 1


def test_a_requeued_session_goes_to_a_working_host_at_once(world: World) -> None:
    bad = world.add_host(slots=9)
    world.add_host(slots=2)
    world.engines.special[bad.id] = EngineThatIsDown()
    session = world.create_session()
    for _ in range(2):
        world.converge(session)
        world.start_placed()
    sandbox = world.sandbox_of(session)
    assert sandbox.host_id != bad.id
    assert sandbox.container_id is not None
    assert world.session(session).slug == sandbox.slug


def test_an_app_that_ran_keeps_its_url_even_if_docker_fails_during_its_recovery(
    world: World,
) -> None:
    world.add_host(slots=2)
    ready = world.run_session(world.create_session())
    lose_sandbox(world, ready)
    bad = world.add_host(slots=9)
    world.engines.special[bad.id] = EngineThatIsDown()
    world.converge(ready)
    assert world.host_of(ready).id == bad.id
    world.start_placed()
    assert world.converge(ready).steps == ("Abandon", "Requeue", "Claim")
    assert world.host_of(ready).id != bad.id
    assert world.sandbox_of(ready).slug == ready.slug
    assert world.session(ready).attempt == 1


def lose_sandbox(world: World, ready: Session) -> None:
    """Let the container exit by itself, and the reconcile loop find out."""
    sandbox = world.sandbox_of(ready)
    world.engine.crash(sandbox.id)
    world.reconcile(world.store.hosts.get(sandbox.host_id))
    assert world.sandbox(sandbox.id).state is SandboxState.BROKEN


def test_a_running_app_that_is_lost_comes_back_under_the_same_slug(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session())
    first = world.sandbox_of(ready)
    lose_sandbox(world, ready)
    world.add_warm_sandbox()
    world.events.sent.clear()
    assert world.converge(ready).steps == ("Abandon", "Requeue", "Claim")

    second = world.sandbox_of(ready)
    assert second.id != first.id
    assert (second.slug, second.routed) == (ready.slug, False)
    assert "switches" in world.events.sent, "its own slug has to be published, at once"
    world.report(ready, Phase.READY)
    world.publish()
    world.converge(ready)
    session = world.session(ready)
    assert (session.state, session.slug, session.attempt) == (SessionState.READY, ready.slug, 1)
    assert session.expires_at == ready.expires_at
    assert world.history(ready) == "queued provisioning ready queued provisioning ready"


def test_an_app_that_is_lost_keeps_its_slot_from_all_newcomers(world: World) -> None:
    world.add_host(slots=1)
    ready = world.run_session(world.create_session())
    newcomers = [world.create_session(), world.create_session()]
    lose_sandbox(world, ready)
    sandbox = world.sandbox_of(ready)
    world.save(world.session(ready), crashes=(world.clock.now(),) * 5)  # so it pauses first
    assert world.converge(ready).steps == ("Abandon", "Requeue", "Wait")
    assert world.session(ready).due_at > world.clock.now()
    world.publish()
    world.clear()
    assert world.sandbox(sandbox.id).state is SandboxState.GONE, "its slot is free"

    for newcomer in newcomers:
        assert world.converge(newcomer).steps == ("Claim",)
        assert world.session(newcomer).state is SessionState.QUEUED
    assert refill.start_missing(world.deps, lambda _: True).starts == 0
    world.clock.advance(600)
    world.converge(ready)
    assert world.session(ready).state is SessionState.PROVISIONING


def test_a_generated_app_comes_back_from_the_version_that_it_kept(world: World) -> None:
    world.add_host()
    session = world.create_session(prompt="a tide calendar for Brest", template=None)
    world.add_warm_sandbox()
    world.converge(session)
    world.upload_bundle(session, data := bundle_of())
    world.report(session, Phase.READY)
    world.converge(session)
    lose_sandbox(world, session)
    world.settle(session, rounds=2)
    sandbox = world.sandbox_of(session)
    assignment = inbox.visit(world.deps, sandbox.id, "").assignment
    assert assignment is not None
    assert (assignment["kind"], assignment["prompt"]) == ("bundle", None)
    assert bundles.bundle_for(world.deps, world.session(session), sandbox.id)[1] == data


def test_a_ready_app_whose_agent_gives_up_fails_with_the_agents_message(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session())
    world.report_failure(ready, permanent=True)
    failed = world.settle(ready, rounds=2)
    assert failed.state is SessionState.FAILED
    assert failed.failure is not None
    assert failed.failure.message == "it exited"


def test_a_sandbox_that_breaks_before_ready_counts_as_an_attempt(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.add_warm_sandbox()
    world.converge(session)
    lose_sandbox(world, session)
    assert world.queue.nudged[-1] == session.id
    world.converge(session)
    world.publish()
    world.converge(session)
    current = world.session(session)
    assert (current.state, current.attempt) == (SessionState.QUEUED, 2)


@pytest.mark.parametrize(
    ("phase", "wait_s", "code", "permanent"),
    [
        (None, 30, "", False),
        (Phase.GENERATING, 600, "generation_timeout", True),
        (Phase.DEPLOYING, 60, "app_not_ready", True),
    ],
)
def test_each_state_has_a_deadline_of_its_own(
    world: World, phase: Phase | None, wait_s: float, code: str, permanent: bool
) -> None:
    world.add_host()
    session = world.create_session()
    world.add_warm_sandbox()
    world.converge(session)
    if phase is not None:
        world.report(session, phase)
        world.converge(session)
    world.clock.advance(wait_s - 0.5)
    world.converge(session)
    assert world.session(session).failure is None
    world.clock.advance(1)
    world.converge(session)
    current = world.session(session)
    if permanent:
        assert current.failure is not None
        assert (current.state, current.failure.code) == (SessionState.FAILED, code)
    else:
        assert (current.state, current.attempt) == (SessionState.QUEUED, 2)


def test_slot_and_port_are_not_given_back_while_docker_does_not_answer(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session())
    sandbox = world.sandbox_of(ready)
    down = EngineThatIsDown()
    down.containers_by_sandbox = world.engine.containers_by_sandbox
    world.engine = down
    world.request_end(ready)
    world.converge(ready)
    world.publish()
    assert world.clear() == 0
    assert world.converge(ready).steps == ("Wait",)
    assert world.state(ready) is SessionState.DESTROYING
    assert world.sandbox(sandbox.id).state is SandboxState.STOPPING
    assert world.session(ready).due_at > world.clock.now()

    down.down = False
    world.queue.nudges.clear()
    assert world.clear() == 1
    assert world.queue.nudged == [ready.id]
    assert world.converge(ready).steps == ("Finish",)
    assert world.state(ready) is SessionState.DESTROYED
    assert down.containers_by_sandbox == {}


def test_an_app_is_back_elsewhere_while_docker_cannot_remove_its_last_sandbox(
    world: World,
) -> None:
    world.add_host(slots=1)
    ready = world.run_session(world.create_session())
    corpse = world.sandbox_of(ready)
    lose_sandbox(world, ready)
    down = EngineThatIsDown()
    down.containers_by_sandbox = world.engine.containers_by_sandbox
    world.engines.special[corpse.host_id] = down
    other = world.add_host(slots=1, publish_address="10.0.0.2")
    world.add_warm_sandbox()
    world.converge(ready)
    world.publish()
    world.clear()
    assert world.sandbox_of(ready).host_id == other.id
    world.report(ready, Phase.READY)
    world.converge(ready)
    session = world.session(ready)
    assert (session.state, session.slug) == (SessionState.READY, ready.slug)
    left = world.sandbox(corpse.id)
    assert (left.state, left.session_id, left.port) == (SandboxState.STOPPING, None, corpse.port)
    assert left.slug != ready.slug


def test_a_failed_session_does_not_wait_until_its_sandbox_is_removed(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session())
    world.engine = EngineThatIsDown()
    world.report_failure(ready, permanent=True)
    assert world.converge(ready).steps == ("Fail", "Abandon", "Finish")
    assert world.state(ready) is SessionState.FAILED


def test_a_start_that_fails_too_late_changes_nothing(world: World) -> None:
    """The session has ended, or moved on to its next attempt, while Docker was asked."""
    world.add_host(slots=9)
    sessions = [world.create_session() for _ in range(2)]
    for session in sessions:
        world.converge(session)
    ending, retrying = sessions
    placed = [world.sandbox_of(session) for session in sessions]
    world.request_end(ending)
    world.converge(ending)
    world.clock.advance(31)
    world.converge(retrying)
    before = [world.session(session) for session in sessions]
    world.engine = EngineThatRefuses()
    for sandbox in placed:
        starts.start(world.deps, sandbox)
    assert [world.session(session) for session in sessions] == before


# Apps that crash again and again


def crash_once_more(world: World, session: Session) -> None:
    """Let a READY app take down its sandbox, and come back if it may."""
    lose_sandbox(world, session)
    world.settle(session, rounds=3)
    if world.session(session).ended:
        return
    world.report(session, Phase.READY)
    world.publish()
    world.converge(session)
    assert world.state(session) is SessionState.READY


def test_an_app_that_crashes_for_ever_is_given_up_with_its_last_lines(world: World) -> None:
    world.add_host(slots=9)
    ready = world.run_session(world.create_session())
    world.store.logs.append(ready.id, ["one", "two"], world.clock.now())
    began_at = world.clock.now()
    for _ in range(11):
        world.publish()
        crash_once_more(world, ready)
    failed = world.session(ready)
    assert failed.state is SessionState.FAILED
    assert failed.failure is not None
    assert failed.failure.code == "app_crashed"
    assert failed.failure.message.endswith("\none\ntwo")
    paused_s = (world.clock.now() - began_at).total_seconds()
    assert paused_s >= 1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256


def test_the_last_lines_of_an_app_that_is_given_up_are_cut(world: World) -> None:
    """The message is in the session's row, and in every status."""
    world.add_host(slots=9)
    ready = world.run_session(world.create_session())
    world.store.logs.append(ready.id, ["a" * 4000, "b" * 4000, "the end"], world.clock.now())
    for _ in range(11):
        world.publish()
        crash_once_more(world, ready)
    failure = world.session(ready).failure
    assert failure is not None
    assert len(failure.message) == FAILURE_MAX_CHARS
    assert failure.message.startswith("The app took down its sandbox 11 times within an hour.")
    assert failure.message.endswith("b\nthe end")


def test_an_app_that_crashes_a_third_time_leaves_the_warm_sandboxes_to_others(
    world: World,
) -> None:
    world.add_host(slots=9)
    ready = world.run_session(world.create_session())
    for _ in range(4):
        world.add_warm_sandbox()
    for _ in range(3):
        crash_once_more(world, ready)
    assert len(world.sandboxes(SandboxState.WARM)) == 2


def test_an_app_that_gets_no_warm_sandbox_holds_up_nobody_who_may_have_one(world: World) -> None:
    world.add_host(slots=1)
    crasher = world.create_session()
    world.save(crasher, crashes=(world.clock.now(),) * 3)
    world.add_warm_sandbox()
    newcomer = world.create_session()
    assert world.converge(crasher).steps == ("Claim",)
    world.converge(newcomer)
    assert world.state(crasher) is SessionState.QUEUED
    assert world.state(newcomer) is SessionState.PROVISIONING


def test_the_history_in_a_sessions_row_stays_short(world: World) -> None:
    session = samples.session()
    for number in range(200):
        to = SessionState.PROVISIONING if number % 2 == 0 else SessionState.QUEUED
        session = session.transition(to, world.clock.now())
    assert len(session.history) == HISTORY_MAX
    assert session.history_dropped == 201 - HISTORY_MAX
