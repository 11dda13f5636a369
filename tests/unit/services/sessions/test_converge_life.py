"""The life of a session, step by step: warm start, cold start, full pool, end."""

from __future__ import annotations

import pytest

from orchestrator.contract.health import PATIENCE_S, Condition
from orchestrator.domain import ids
from orchestrator.domain.pool.host import Drain, HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase, Session, SessionState, Wanted
from orchestrator.services.agents.inbox import visit
from orchestrator.services.sessions import converge, walks
from tests.fakes.probe import ProbeThatFails, ProbeThatSucceeds
from tests.fakes.samples import later
from tests.unit.services.world import World, bundle_of, identity_of


def test_a_warm_claim_calls_neither_docker_nor_the_proxy(world: World) -> None:
    world.add_host()
    warm = world.add_warm_sandbox()
    published, started = len(world.proxy.tables), len(world.engine.specs)
    session = world.create_session()

    outcome = world.converge(session)

    assert outcome.steps == ("Claim",)
    claimed = world.session(session)
    assert claimed.state is SessionState.PROVISIONING
    assert (claimed.sandbox_id, claimed.slug) == (warm.id, warm.slug)
    assert f"inbox:{warm.id}" in world.events.sent
    assert (len(world.proxy.tables), len(world.engine.specs)) == (published, started)


def test_a_warm_session_goes_from_prompt_to_ready(world: World) -> None:
    world.add_host()
    warm = world.add_warm_sandbox()
    session = world.create_session()
    world.converge(session)
    inbox = visit(world.deps, warm.id, "")
    assert inbox.assignment is not None
    world.report(session, Phase.DEPLOYING)
    assert world.converge(session).steps == ("Advance", "Wait")
    world.report(session, Phase.READY)
    assert world.converge(session).steps == ("Walk", "Accept")

    ready = world.session(session)
    assert ready.state is SessionState.READY
    assert (ready.version, ready.due_at, ready.deadline_at) == (1, ready.expires_at, None)
    assert world.probe.probed == [warm.slug]
    assert world.history(session) == "queued provisioning deploying ready"


def test_a_cold_session_gets_a_sandbox_under_its_own_slug(world: World) -> None:
    world.add_host()
    session = world.create_session()
    assert world.converge(session).steps == ("Claim",)
    assert world.engine.specs == [], "a worker never waits for Docker"
    assert "routes" in world.events.sent, "this wakes the loop that starts it"
    world.start_placed()
    sandbox = world.sandbox_of(session)
    assert (sandbox.state, sandbox.session_id, sandbox.slug) == (
        SandboxState.CREATING,
        session.id,
        world.session(session).slug,
    )
    (spec,) = world.engine.specs
    token = world.deps.tokens.for_sandbox(sandbox.id)
    assert identity_of(spec) == {
        "sandbox_id": sandbox.id,
        "token": token,
        "slug": sandbox.slug,
        "interpreters": True,
    }
    assert (spec.port, spec.image, spec.publish_address) == (
        sandbox.port,
        sandbox.image,
        world.store.hosts.get(sandbox.host_id).publish_address,
    )

    assert visit(world.deps, sandbox.id, "").assignment is not None
    assert world.sandbox(sandbox.id).state is SandboxState.CLAIMED


def test_an_app_is_verified_only_when_its_route_is_live(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.start_placed()
    visit(world.deps, world.sandbox_of(session).id, "")
    world.report(session, Phase.READY)
    assert world.converge(session).steps == ("Wait",)
    assert world.probe.probed == []

    world.queue.nudges.clear()
    world.publish()
    assert world.queue.nudged == [session.id]
    assert world.converge(session).steps == ("Walk", "Accept")
    assert world.state(session) is SessionState.READY


def test_an_app_that_does_not_answer_at_its_url_is_walked_again_soon(world: World) -> None:
    probe = ProbeThatFails()
    session = answering(world, probe)
    assert world.converge(session).steps == ("Walk", "Advance", "Wait")
    current = world.session(session)
    assert current.state is SessionState.DEPLOYING
    assert current.walked is not None
    assert current.walked.next_at == later(0.3, world.clock.now())

    probe.is_down = False
    world.walk_again(session)
    assert world.state(session) is SessionState.READY
    assert world.session(session).walked is None


def test_a_report_that_the_app_runs_leads_to_a_walk_and_its_result_to_a_look(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.add_warm_sandbox()
    world.converge(session)
    world.queue.nudges.clear()
    world.report(session, Phase.READY)
    assert f"walk:{session.id}" in world.events.sent
    assert world.queue.nudged == [], "no worker can say anything yet"

    world.walk(session)
    assert world.queue.nudged == [session.id]
    assert world.converge(session).steps == ("Accept",)
    assert world.history(session) == "queued provisioning ready"


def test_an_app_that_hangs_costs_workers_a_few_looks(world: World) -> None:
    session = answering(world, ProbeThatFails())
    world.walk(session)
    world.queue.nudges.clear()
    world.converge(session)
    deadline_at = world.session(session).deadline_at
    assert deadline_at is not None
    looks = 1
    while world.state(session) is not SessionState.FAILED:
        current = world.session(session)
        assert current.walked is not None
        world.clock.jump_to(min(current.walked.next_at, current.due_at))
        if current.due_at <= world.clock.now():
            looks += 1
            world.converge(session)
        else:
            world.walk(session)
    assert world.clock.now() == deadline_at
    assert world.queue.nudged == []
    assert len(world.probe.probed) > 10
    assert looks <= 6


def test_while_a_first_walk_lasts_no_worker_looks_at_its_session(world: World) -> None:
    session = answering(world, ProbeThatSucceeds())
    errand = walks.find_errand(world.deps, session.id)
    assert errand is not None
    world.queue.nudges.clear()
    walks.begin(world.deps, errand)
    assert world.queue.nudged == [session.id]
    assert world.converge(session).steps == ("Advance", "Wait")
    world.clock.jump_to(world.session(session).due_at)
    assert world.converge(session).steps == ("Wait",)
    assert (world.session(session).due_at - world.clock.now()).total_seconds() > PATIENCE_S

    walks.end(world.deps, errand, world.probe.finding)
    world.converge(session)
    assert world.state(session) is SessionState.READY


@pytest.mark.parametrize("lost", ["session", "attempt", "report"])
def test_a_result_that_comes_too_late_changes_nothing(world: World, lost: str) -> None:
    session = answering(world, ProbeThatSucceeds())
    errand = walks.find_errand(world.deps, session.id)
    assert errand is not None
    match lost:
        case "session":
            world.request_end(session)
        case "attempt":
            world.save(session, attempt=2)
        case "report":
            world.report_failure(session, permanent=True)
    before = world.session(session)
    assert walks.end(world.deps, errand, world.probe.finding) is None
    assert world.session(session) == before


def test_a_walk_that_was_lost_with_its_process_is_asked_for_again(world: World) -> None:
    session = answering(world, ProbeThatSucceeds())
    errand = walks.find_errand(world.deps, session.id)
    assert errand is not None
    walks.begin(world.deps, errand)
    world.converge(session)
    world.clock.advance(PATIENCE_S + 5)
    world.converge(session)
    assert world.state(session) is SessionState.READY


def answering(world: World, probe: ProbeThatSucceeds) -> Session:
    """A session whose agent says that its app runs."""
    world.add_host()
    world.probe = probe
    session = world.create_session()
    world.add_warm_sandbox()
    world.converge(session)
    world.report(session, Phase.READY)
    return session


def test_an_app_that_stays_unwell_at_its_url_fails_with_what_is_wrong(world: World) -> None:
    problem = "GET / answers 404, which is what everybody sees."
    session = answering(world, ProbeThatFails(Condition.UNWELL, problem))
    world.converge(session)
    while world.state(session) is SessionState.DEPLOYING:
        world.walk_again(session)

    assert world.state(session) is SessionState.FAILED
    failure = world.session(session).failure
    assert failure is not None
    assert (failure.code, failure.permanent) == ("app_not_healthy", True)
    assert problem in failure.message
    assert len(world.probe.probed) == 5


def test_an_app_that_is_unwell_at_first_may_get_well(world: World) -> None:
    probe = ProbeThatFails(Condition.UNWELL)
    session = answering(world, probe)
    world.converge(session)
    for _ in range(3):
        world.walk_again(session)
    probe.is_down = False
    world.walk_again(session)

    assert world.state(session) is SessionState.READY


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        (Condition.UNREACHED, SessionState.DEPLOYING),
        (Condition.SILENT, SessionState.FAILED),
    ],
)
def test_time_in_which_we_cannot_reach_an_app_is_not_the_apps(
    world: World, condition: Condition, state: SessionState
) -> None:
    session = answering(world, ProbeThatFails(condition))
    world.converge(session)
    for _ in range(100):
        if world.state(session) is SessionState.DEPLOYING:
            world.walk_again(session)
    assert world.state(session) is state


def test_an_app_is_asked_once_however_late_its_route_is(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.start_placed()
    visit(world.deps, world.sandbox_of(session).id, "")
    world.report(session, Phase.READY)
    deadline_at = world.session(session).deadline_at
    assert deadline_at is not None
    world.clock.jump_to(deadline_at)
    assert world.converge(session).steps == ("Wait",)
    world.publish()

    world.converge(session)
    assert world.state(session) is SessionState.READY


def test_a_generated_app_is_ready_at_the_version_that_its_agent_kept(world: World) -> None:
    world.add_host()
    session = world.create_session(prompt="a tide calendar for Brest", template=None)
    assert session.bundle is None
    world.add_warm_sandbox()
    world.converge(session)
    world.report(session, Phase.GENERATING)
    world.converge(session)
    assert world.state(session) is SessionState.GENERATING
    world.upload_bundle(session, bundle_of("a draft"), healthy=False)
    world.upload_bundle(session, bundle_of("it works"))
    world.report(session, Phase.READY)
    world.converge(session)
    ready = world.session(session)
    assert (ready.state, ready.version) == (SessionState.READY, 2)


def test_without_capacity_a_session_stays_due_and_is_served_when_room_appears(
    world: World,
) -> None:
    world.add_host(slots=1)
    first, second = world.create_session(), world.create_session()
    world.converge(first)
    assert world.converge(second).steps == ("Claim",)
    waiting = world.session(second)
    assert (waiting.state, waiting.due_at) == (SessionState.QUEUED, second.due_at)

    world.request_end(first)
    world.settle(first, rounds=3)
    assert world.state(first) is SessionState.DESTROYED
    world.converge(second)
    assert world.state(second) is SessionState.PROVISIONING


def test_without_any_host_a_session_waits(world: World) -> None:
    session = world.create_session()
    assert world.converge(session).steps == ("Claim",)
    assert world.state(session) is SessionState.QUEUED


@pytest.mark.parametrize(
    "changes", [{"state": HostState.SUSPECT}, {"cordoned": True}, {"drain": Drain.WAIT}]
)
def test_a_warm_sandbox_on_a_closed_host_is_not_claimed(
    world: World, changes: dict[str, object]
) -> None:
    host = world.add_host(slots=1)
    world.add_warm_sandbox()
    world.add_host(id=host.id, name=host.name, slots=1, **changes)
    session = world.create_session()
    world.converge(session)
    assert world.state(session) is SessionState.QUEUED


def test_converging_an_unknown_session_is_no_error(world: World) -> None:
    outcome = converge.converge(world.deps, ids.new_session_id())
    assert outcome == converge.Outcome(state=None, steps=())


def test_converging_once_more_changes_nothing(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session())
    world.events.sent.clear()
    assert world.converge(ready).steps == ("Wait",)
    assert world.session(ready) == ready
    assert world.events.sent == []


def test_an_ended_session_needs_no_more_steps(world: World) -> None:
    session = world.create_session()
    world.request_end(session)
    assert world.converge(session).steps == ("Destroy", "Finish")
    assert world.converge(session).steps == ()
    assert world.history(session) == "queued destroying destroyed"


def test_the_end_withdraws_the_route_before_it_removes_the_container(world: World) -> None:
    world.add_host()
    ready = world.run_session(world.create_session())
    sandbox = world.sandbox_of(ready)
    world.request_end(ready)

    assert world.converge(ready).steps == ("Destroy",)
    assert world.sandbox(sandbox.id).state is SandboxState.STOPPING
    assert world.engine.removed == []
    assert f"inbox:{sandbox.id}" in world.events.sent
    assert world.clear() == 0, "the proxy may still send requests there"
    world.publish()
    assert sandbox.slug not in world.proxy.slugs
    assert world.clear() == 1
    assert world.converge(ready).steps == ("Finish",)

    assert world.engine.removed == [sandbox.id]
    assert world.sandbox(sandbox.id).state is SandboxState.GONE
    gone = world.session(ready)
    assert (gone.state, gone.sandbox_id, gone.slug) == (
        SessionState.DESTROYED,
        None,
        sandbox.slug,
    )


def test_the_end_starts_the_retention_of_the_bundles(world: World) -> None:
    world.add_host()
    session = world.create_session(prompt="a tide calendar for Brest", template=None)
    world.add_warm_sandbox()
    world.converge(session)
    world.upload_bundle(session, bundle_of())
    world.request_end(session)
    world.settle(session, rounds=3)
    (record,) = world.store.bundles.list(session.id)
    assert record.delete_after is not None
    assert record.delete_after > world.clock.now()


STAGES = ["queued", "placed", "started", "claimed", "generating", "deploying", "ready", "lost"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_session_can_end_at_every_stage_and_leaves_nothing(world: World, stage: str) -> None:
    world.add_host()
    session = world.create_session()
    bring_to(world, session.id, stage)
    world.request_end(session)
    world.settle(session, rounds=4)

    ended = world.session(session)
    assert (ended.state, ended.wanted) == (SessionState.DESTROYED, Wanted.GONE)
    assert ended.sandbox_id is None
    assert world.sandboxes() == []
    assert world.engine.containers_by_sandbox == {}
    assert world.proxy.slugs == set()
    (load,) = world.store.hosts.loads()
    assert load.free == load.host.slots


def bring_to(world: World, session_id: ids.SessionId, stage: str) -> None:
    session = world.session(session_id)
    if stage == "queued":
        return
    if stage in {"placed", "started"}:
        world.converge(session)
        if stage == "started":
            world.start_placed()
        assert (world.sandbox_of(session).container_id is None) == (stage == "placed")
        return
    if stage in {"ready", "lost"}:
        world.run_session(session)
        if stage == "lost":
            world.engine.crash(world.sandbox_of(session).id)
        return
    world.add_warm_sandbox()
    world.converge(session)
    if stage != "claimed":
        world.report(session, Phase(stage))
        world.converge(session)
        assert world.state(session) == stage
