"""Sessions in trouble: Docker, agents or sandboxes fail, or other workers interfere."""

from __future__ import annotations

import pytest

from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.services.agents import bundles, inbox
from orchestrator.services.pool import host_life, reconcile
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
        world.converge(session)
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
        world.converge(session)
        world.publish()
        assert world.converge(session).steps == ("Remove", "Requeue", "Wait")
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
    assert world.converge(session).steps == ("Claim", "Start", "Retire", "Wait")
    current = world.session(session)
    assert current.failure is not None
    assert (current.failure.code, current.failure.permanent) == ("create_failed", False)
    failed = world.settle(session, rounds=9)
    assert (failed.state, failed.attempt) == (SessionState.FAILED, 3)


def test_a_session_waits_for_another_workers_start(world: World) -> None:
    world.add_host()
    world.engine = EngineThatRefuses("start_in_progress", times=1)
    session = world.create_session()
    outcome = world.converge(session)
    assert (outcome.steps, outcome.waits_for) == (("Claim", "Start"), "start_in_progress")
    current = world.session(session)
    assert (current.failure, current.attempt) == (None, 1)
    assert (current.due_at - world.clock.now()).total_seconds() == 1.0

    world.clock.jump_to(current.due_at)
    assert world.converge(session).steps == ("Start", "Wait")
    assert world.sandbox_of(session).container_id is not None


def test_a_container_that_is_created_and_never_started_is_replaced_after_a_while(
    world: World,
) -> None:
    world.add_host()
    world.engine = EngineThatRefuses("start_in_progress", times=1)
    session = world.create_session()
    world.converge(session)
    world.engine.add(world.sandbox_of(session).id, running=False)
    world.clock.advance(10)
    assert world.converge(session).waits_for == "start_in_progress"
    world.clock.advance(0.1)
    assert world.converge(session).steps == ("Start", "Wait")
    assert world.engine.replace_stale_flags[-1] is True


def test_a_session_is_requeued_without_counting_an_attempt_if_the_engine_is_down(
    world: World,
) -> None:
    host = world.add_host()
    world.engine = engine = EngineThatIsDown()
    session = world.create_session()
    assert world.converge(session).steps == ("Claim", "Start", "Claim")
    requeued = world.session(session)
    assert (requeued.state, requeued.attempt) == (SessionState.QUEUED, 1)
    assert (requeued.sandbox_id, requeued.failure) == (None, None)
    assert requeued.due_at <= world.clock.now()
    assert world.store.hosts.get(host.id).state is HostState.SUSPECT
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
    world.converge(session)
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
    world.converge(ready)
    world.publish()
    bad = world.add_host(slots=9)
    world.engines.special[bad.id] = engine = EngineThatIsDown()
    outcome = world.converge(ready)
    assert outcome.steps == ("Remove", "Requeue", "Claim", "Start", "Claim")
    assert outcome.waits_for == "slug_held"
    assert world.session(ready).slug == ready.slug
    assert world.session(ready).due_at <= world.clock.now()

    engine.down = False
    world.publish()
    reconcile.clear_loose_ends(world.deps)
    world.converge(ready)
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
    assert world.converge(ready).steps == ("Retire", "Wait")
    world.publish()
    world.add_warm_sandbox()
    world.events.sent.clear()
    assert world.converge(ready).steps == ("Remove", "Requeue", "Claim")

    second = world.sandbox_of(ready)
    assert second.id != first.id
    assert (second.slug, second.routed) == (ready.slug, False)
    assert "routes" in world.events.sent, "its own slug has to be published"
    world.report(ready, Phase.READY)
    world.publish()
    world.converge(ready)
    session = world.session(ready)
    assert (session.state, session.slug, session.attempt) == (SessionState.READY, ready.slug, 1)
    assert session.expires_at == ready.expires_at
    assert world.history(ready) == "queued provisioning ready queued provisioning ready"


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
        (None, 30, "sandbox_not_ready", False),
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
    failure = world.session(session).failure
    assert failure is not None
    assert (failure.code, failure.permanent) == (code, permanent)


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
    outcome = world.converge(ready)
    assert outcome.waits_for == "docker_unavailable"
    assert world.sandbox(sandbox.id).state is SandboxState.STOPPING
    assert world.session(ready).due_at > world.clock.now()

    down.down = False
    assert world.settle(ready, rounds=1).state is SessionState.DESTROYED
    assert down.containers_by_sandbox == {}
