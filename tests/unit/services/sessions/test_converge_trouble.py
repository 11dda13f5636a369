"""When Docker, agents, sandboxes or other workers get in the way of a session."""

from __future__ import annotations

import pytest

from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.services.agents import bundles, inbox
from orchestrator.services.pool import host_life, reconcile
from tests.fakes.engine import EngineThatIsDown, EngineThatRefuses
from tests.unit.services.world import World, bundle_of


def attempts_until_failed(world: World, session: Session, *, permanent: bool) -> Session:
    """Let the agent of every attempt give up."""
    for _ in range(5):
        if world.session(session).ended:
            break
        world.warm()
        world.converge(session)
        world.give_up(session, permanent=permanent)
        world.converge(session)
        world.publish()
        world.converge(session)
        world.clock.jump_to(world.session(session).due_at)
    return world.session(session)


def test_three_attempts_that_fail_for_now_fail_the_session(world: World) -> None:
    world.host()
    failed = attempts_until_failed(world, world.ask(), permanent=False)
    assert (failed.state, failed.attempt) == (SessionState.FAILED, 3)
    assert failed.failure is not None
    assert failed.failure.code == "app_not_ready"
    assert world.story(failed) == (
        "queued provisioning queued provisioning queued provisioning failed"
    )
    assert len(world.engine.removed) == 3


def test_a_permanent_failure_is_not_tried_again(world: World) -> None:
    world.host()
    failed = attempts_until_failed(world, world.ask(), permanent=True)
    assert (failed.state, failed.attempt) == (SessionState.FAILED, 1)
    assert failed.sandbox_id is None
    assert world.boxes() == []


def test_between_two_attempts_there_is_a_pause_that_doubles(world: World) -> None:
    world.host()
    session = world.ask()
    pauses = []
    for _ in range(2):
        world.warm()
        world.converge(session)
        world.give_up(session, permanent=False)
        world.converge(session)
        world.publish()
        assert world.converge(session).steps == ("Remove", "Requeue", "Rest")
        found = world.session(session)
        assert (found.sandbox_id, found.report, found.failure) == (None, None, None)
        assert found.deadline_at is None
        pauses.append((found.due_at - world.clock.now()).total_seconds())
        assert world.converge(session).steps == ("Rest",)
        world.clock.jump_to(found.due_at)
    assert pauses == [1.0, 2.0]


def test_a_sandbox_that_docker_refuses_costs_an_attempt(world: World) -> None:
    world.host()
    world.engine = EngineThatRefuses("create_failed")
    session = world.ask()
    assert world.converge(session).steps == ("Claim", "Start", "Retire", "Rest")
    found = world.session(session)
    assert found.failure is not None
    assert (found.failure.code, found.failure.permanent) == ("create_failed", False)
    failed = world.settle(session, rounds=9)
    assert (failed.state, failed.attempt) == (SessionState.FAILED, 3)


def test_a_start_that_another_worker_is_at_is_waited_for(world: World) -> None:
    world.host()
    world.engine = EngineThatRefuses("start_in_progress", times=1)
    session = world.ask()
    outcome = world.converge(session)
    assert (outcome.steps, outcome.waits_for) == (("Claim", "Start"), "start_in_progress")
    found = world.session(session)
    assert (found.failure, found.attempt) == (None, 1)
    assert (found.due_at - world.clock.now()).total_seconds() == 1.0

    world.clock.jump_to(found.due_at)
    assert world.converge(session).steps == ("Start", "Rest")
    assert world.sandbox_of(session).container_id is not None


def test_a_container_that_is_created_and_never_started_is_replaced_after_a_while(
    world: World,
) -> None:
    world.host()
    world.engine = EngineThatRefuses("start_in_progress", times=1)
    session = world.ask()
    world.converge(session)
    world.engine.add(world.sandbox_of(session).id, running=False)
    world.clock.advance(10)
    assert world.converge(session).waits_for == "start_in_progress"
    world.clock.advance(0.1)
    assert world.converge(session).steps == ("Start", "Rest")
    assert world.engine.replaced[-1] is True


def test_an_engine_that_is_down_gives_the_session_back_without_burning_an_attempt(
    world: World,
) -> None:
    host = world.host()
    world.engine = engine = EngineThatIsDown()
    session = world.ask()
    assert world.converge(session).steps == ("Claim", "Start", "Claim")
    given_back = world.session(session)
    assert (given_back.state, given_back.attempt) == (SessionState.QUEUED, 1)
    assert (given_back.sandbox_id, given_back.failure) == (None, None)
    assert given_back.due_at <= world.clock.now()
    assert world.store.hosts.get(host.id).state is HostState.SUSPECT
    (left,) = world.boxes()
    assert (left.state, left.session_id) == (SandboxState.STOPPING, None)

    engine.down = False
    host_life.admit(world.deps, world.fleet, world.store.hosts.get(host.id))
    assert world.settle(session, rounds=2).state is SessionState.PROVISIONING
    assert world.session(session).attempt == 1


def test_a_session_given_back_goes_to_a_host_that_works_at_once(world: World) -> None:
    bad = world.host(slots=9)
    world.host(slots=2)
    world.engines.special[bad.id] = EngineThatIsDown()
    session = world.ask()
    world.converge(session)
    box = world.sandbox_of(session)
    assert box.host_id != bad.id
    assert box.container_id is not None
    assert world.session(session).slug == box.slug


def test_an_app_that_ran_keeps_its_url_even_if_docker_goes_away_while_it_recovers(
    world: World,
) -> None:
    world.host(slots=2)
    ready = world.run(world.ask())
    lose_sandbox(world, ready)
    world.converge(ready)
    world.publish()
    bad = world.host(slots=9)
    world.engines.special[bad.id] = engine = EngineThatIsDown()
    outcome = world.converge(ready)
    assert outcome.steps == ("Remove", "Requeue", "Claim", "Start", "Claim")
    assert outcome.waits_for == "slug_held"
    assert world.session(ready).slug == ready.slug
    assert world.session(ready).due_at <= world.clock.now()

    engine.down = False
    world.publish()
    reconcile.clear(world.deps)
    world.converge(ready)
    assert world.sandbox_of(ready).slug == ready.slug
    assert world.session(ready).attempt == 1


def lose_sandbox(world: World, ready: Session) -> None:
    """Its container ends by itself, and the reconcile loop finds out."""
    box = world.sandbox_of(ready)
    world.engine.crash(box.id)
    world.reconcile(world.store.hosts.get(box.host_id))
    assert world.box(box.id).state is SandboxState.BROKEN


def test_a_running_app_that_is_lost_comes_back_under_the_same_slug(world: World) -> None:
    world.host()
    ready = world.run(world.ask())
    first = world.sandbox_of(ready)
    lose_sandbox(world, ready)
    assert world.converge(ready).steps == ("Retire", "Rest")
    world.publish()
    world.warm()
    world.events.sent.clear()
    assert world.converge(ready).steps == ("Remove", "Requeue", "Claim")

    back = world.sandbox_of(ready)
    assert back.id != first.id
    assert (back.slug, back.routed) == (ready.slug, False)
    assert "routes" in world.events.sent, "its own slug has to be published"
    world.report(ready, Phase.READY)
    world.publish()
    world.converge(ready)
    again = world.session(ready)
    assert (again.state, again.slug, again.attempt) == (SessionState.READY, ready.slug, 1)
    assert again.expires_at == ready.expires_at
    assert world.story(ready) == "queued provisioning ready queued provisioning ready"


def test_a_generated_app_comes_back_from_the_version_that_it_kept(world: World) -> None:
    world.host()
    session = world.ask(prompt="a tide calendar for Brest", template=None)
    world.warm()
    world.converge(session)
    world.keep(session, data := bundle_of())
    world.report(session, Phase.READY)
    world.converge(session)
    lose_sandbox(world, session)
    world.settle(session, rounds=2)
    box = world.sandbox_of(session)
    assignment = inbox.visit(world.deps, box.id, "").assignment
    assert assignment is not None
    assert (assignment["kind"], assignment["prompt"]) == ("bundle", None)
    assert bundles.bundle_for(world.deps, world.session(session), box.id)[1] == data


def test_a_ready_app_that_its_agent_gives_up_fails_with_what_it_said(world: World) -> None:
    world.host()
    ready = world.run(world.ask())
    world.give_up(ready, permanent=True)
    failed = world.settle(ready, rounds=2)
    assert failed.state is SessionState.FAILED
    assert failed.failure is not None
    assert failed.failure.message == "it exited"


def test_a_sandbox_that_breaks_before_ready_costs_an_attempt(world: World) -> None:
    world.host()
    session = world.ask()
    world.warm()
    world.converge(session)
    lose_sandbox(world, session)
    assert world.queue.nudged[-1] == session.id
    world.converge(session)
    world.publish()
    world.converge(session)
    found = world.session(session)
    assert (found.state, found.attempt) == (SessionState.QUEUED, 2)


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
    world.host()
    session = world.ask()
    world.warm()
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


def test_nothing_is_given_back_while_docker_does_not_answer(world: World) -> None:
    world.host()
    ready = world.run(world.ask())
    box = world.sandbox_of(ready)
    down = EngineThatIsDown()
    down.found = world.engine.found
    world.engine = down
    world.want_gone(ready)
    world.converge(ready)
    world.publish()
    outcome = world.converge(ready)
    assert outcome.waits_for == "docker_unavailable"
    assert world.box(box.id).state is SandboxState.STOPPING
    assert world.session(ready).due_at > world.clock.now()

    down.down = False
    assert world.settle(ready, rounds=1).state is SessionState.DESTROYED
    assert down.found == {}
