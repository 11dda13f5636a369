"""The life of a change. The version before it is served until the new one runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.contract.health import Condition
from orchestrator.domain import errors
from orchestrator.domain.pool.host import Drain
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.changes import ChangeState, state_of
from orchestrator.domain.sessions.session import Failure, Phase, Session, SessionState
from orchestrator.services.agents import access, bundles, inbox, reports
from orchestrator.services.pool import claims
from orchestrator.services.sessions import changes, versions
from tests.fakes.probe import ProbeThatFails
from tests.unit.services.world import VISITOR, World, bundle_of, digest_of

BLUE = bundle_of("<h1>blue</h1>")
GREEN = bundle_of("<h1>green</h1>")
BROKEN = Failure(code="app_not_healthy", message="no answer on /")


@pytest.fixture
def app(world: World) -> Session:
    """A READY app that Claude has written."""
    world.add_host()
    return world.generate_app()


def fetch(world: World, session: Session, have: str = "") -> dict[str, Any]:
    """The assignment that the session's sandbox gets when it runs `have`."""
    sandbox = world.sandbox_of(session)
    assignment = inbox.visit(world.deps, sandbox.id, have).assignment
    assert assignment is not None
    return assignment


def state(world: World, session: Session, number: int) -> ChangeState:
    current = world.session(session)
    return state_of(world.change(session, number), current.turns, session_ended=current.ended)


def lose_sandbox(world: World, session: Session) -> None:
    """Retire the session's sandbox, as if its container had exited."""
    claims.retire(world.deps, world.sandbox_of(session), "its container exited")
    world.publish()


# A change that succeeds


def test_a_message_becomes_the_next_version_at_the_same_url(world: World, app: Session) -> None:
    have = fetch(world, app)["id"]
    world.send_message(app)
    assert world.converge(app).steps == ("BeginChange", "Wait")
    changing = world.session(app)
    assert (changing.state, changing.is_changing, changing.is_served) == (
        SessionState.GENERATING,
        True,
        True,
    )
    assert state(world, app, 1) is ChangeState.RUNNING
    assignment = fetch(world, app, have)
    assert assignment["id"] == f"{app.id}/1/1"
    assert (assignment["kind"], assignment["message"]) == ("change", "make it blue")
    assert assignment["bundle"]["sha256"] == app.bundle
    assert assignment["conversation"] == [
        {"role": "user", "text": "a tide calendar"},
        {"role": "assistant", "text": "Tides of the week."},
    ]
    world.carry_out_change(app, BLUE)
    world.converge(app)
    session = world.session(app)
    assert (session.state, session.version, session.bundle) == (
        SessionState.READY,
        2,
        digest_of(BLUE),
    )
    assert (session.slug, session.sandbox_id) == (app.slug, app.sandbox_id)
    change = world.change(app, 1)
    assert (change.version, change.summary, change.failure) == (2, "It is blue.", None)
    assert [
        (version.version, version.change, version.summary)
        for version in versions.list_versions(world.deps, session)
    ] == [
        (1, 0, "Tides of the week."),
        (2, 1, "It is blue."),
    ]
    assert inbox.visit(world.deps, world.sandbox_of(app).id, assignment["id"]).assignment is None


def test_the_apps_route_is_live_during_a_change(world: World, app: Session) -> None:
    world.send_message(app)
    for _ in range(3):
        world.converge(app)
        world.publish()
        assert app.slug in {route.slug for route in world.proxy.tables[-1].routes}


def test_messages_are_carried_out_one_after_the_other(world: World, app: Session) -> None:
    world.send_message(app, "blue")
    world.send_message(app, "green")
    world.converge(app)
    assert (state(world, app, 1), state(world, app, 2)) == (
        ChangeState.RUNNING,
        ChangeState.QUEUED,
    )
    world.carry_out_change(app, BLUE)
    assert "BeginChange" in world.converge(app).steps
    assignment = fetch(world, app, f"{app.id}/1/1")
    assert assignment["message"] == "green"
    assert [message["text"] for message in assignment["conversation"]][2:] == [
        "blue",
        "It is blue.",
    ]
    world.carry_out_change(app, GREEN, "It is green.")
    world.converge(app)
    assert (state(world, app, 2), world.session(app).version) == (ChangeState.DONE, 3)


def test_a_message_sent_before_the_app_is_ready_is_carried_out_right_after(
    world: World, session: Session
) -> None:
    world.send_message(session)
    world.upload_bundle(session, bundle_of())
    world.report(session, Phase.READY)
    assert world.converge(session).steps[-2:] == ("BeginChange", "Wait")
    assert world.session(session).version == 1


def test_a_template_can_be_changed_and_counts_as_version_1(world: World) -> None:
    world.add_host()
    app = world.run_session(world.create_session())
    world.send_message(app)
    world.converge(app)
    assignment = fetch(world, app)
    assert assignment["bundle"]["sha256"] == app.bundle
    assert assignment["conversation"][0]["text"] == "Start the template kanban."
    world.carry_out_change(app, BLUE)
    world.converge(app)
    session = world.session(app)
    assert session.version == 2
    records = versions.list_versions(world.deps, session)
    assert [(record.version, record.sha256) for record in records] == [
        (1, app.bundle),
        (2, digest_of(BLUE)),
    ]


# Restoring


def test_an_earlier_version_comes_back_without_the_model(world: World, app: Session) -> None:
    world.send_message(app)
    world.converge(app)
    world.carry_out_change(app, BLUE)
    world.converge(app)
    changes.restore(world.deps, VISITOR, app.id, 1)
    world.converge(app)
    assert (world.state(app), world.session(app).is_served) == (SessionState.DEPLOYING, True)
    assignment = fetch(world, app, f"{app.id}/1/1")
    assert (assignment["kind"], assignment["model"], assignment["bundle"]["sha256"]) == (
        "bundle",
        None,
        app.bundle,
    )
    session = access.authorize(world.deps, assignment["session_token"])
    assert bundles.bundle_for(world.deps, session, world.sandbox_of(app).id)[0] == app.bundle
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, assignment["session_token"])
    world.report(app, Phase.READY)
    world.converge(app)
    current = world.session(app)
    assert (current.state, current.version, current.bundle) == (SessionState.READY, 1, app.bundle)
    assert (world.change(app, 2).version, state(world, app, 2)) == (1, ChangeState.DONE)


def test_a_version_that_serves_is_the_one_of_its_history_whatever_it_shows_later(
    world: World, app: Session
) -> None:
    """It was tried at its public address before it was shown."""
    world.send_message(app)
    world.converge(app)
    world.carry_out_change(app, BLUE)
    world.converge(app)
    changes.restore(world.deps, VISITOR, app.id, 1)
    world.converge(app)
    world.probe = ProbeThatFails(Condition.UNWELL, "GET / answers 404.")
    world.report(app, Phase.READY)
    assert world.queue.nudged[-1] == app.id
    world.converge(app)
    current = world.session(app)
    assert (current.state, current.version, current.bundle) == (SessionState.READY, 1, app.bundle)
    assert state(world, app, 2) == ChangeState.DONE
    assert world.probe.probed == []


def test_a_template_comes_back_as_version_1(world: World) -> None:
    world.add_host()
    app = world.run_session(world.create_session())
    world.send_message(app)
    world.converge(app)
    world.carry_out_change(app, BLUE)
    world.converge(app)
    changes.restore(world.deps, VISITOR, app.id, 1)
    world.converge(app)
    assert fetch(world, app, f"{app.id}/1/1")["bundle"]["sha256"] == app.bundle
    world.report(app, Phase.READY)
    world.converge(app)
    assert world.session(app).bundle == app.bundle


def test_a_restore_of_the_running_version_is_done_at_once(world: World, app: Session) -> None:
    world.send_message(app)
    changes.restore(world.deps, VISITOR, app.id, 1)
    world.converge(app)
    world.report(app, Phase.READY, setback=BROKEN)
    world.converge(app)
    assert world.state(app) is SessionState.READY
    assert (state(world, app, 1), state(world, app, 2)) == (ChangeState.FAILED, ChangeState.DONE)


# A change that fails


def test_a_change_that_fails_leaves_the_earlier_version_running(world: World, app: Session) -> None:
    world.send_message(app)
    world.converge(app)
    world.upload_bundle(app, BLUE, healthy=False)
    world.report(app, Phase.READY, setback=BROKEN)
    world.converge(app)
    session = world.session(app)
    assert (session.state, session.version, session.bundle) == (SessionState.READY, 1, app.bundle)
    assert session.failure is None
    assert (world.change(app, 1).failure, world.change(app, 1).version) == (BROKEN, None)
    records = versions.list_versions(world.deps, session)
    assert [(record.version, record.healthy) for record in records] == [(1, True), (2, False)]


def test_a_kept_version_that_could_not_take_over_leaves_the_earlier_one_running(
    world: World, app: Session
) -> None:
    """It was healthy when it was uploaded, and then didn't start with the latest data."""
    world.send_message(app)
    world.converge(app)
    world.upload_bundle(app, BLUE)
    world.report(app, Phase.READY, setback=BROKEN)
    world.converge(app)
    session = world.session(app)
    assert (session.state, session.version, session.bundle) == (SessionState.READY, 1, app.bundle)
    assert (world.change(app, 1).failure, world.change(app, 1).version) == (BROKEN, None)
    world.send_message(app)
    world.converge(app)
    assert fetch(world, app)["bundle"]["sha256"] == app.bundle


def test_a_change_that_takes_too_long_fails(world: World, app: Session) -> None:
    world.send_message(app)
    world.converge(app)
    token = world.token(app)
    world.clock.advance(601)
    world.converge(app)
    failure = world.change(app, 1).failure
    assert failure is not None
    assert failure.code == "generation_timeout"
    assert world.state(app) is SessionState.READY
    session = access.authorize(world.deps, token)
    with pytest.raises(errors.Forbidden):
        bundles.keep_bundle(world.deps, session, BLUE, digest_of(BLUE))
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, token)


def test_a_change_whose_version_was_kept_in_time_succeeds_even_if_the_report_is_late(
    world: World, app: Session
) -> None:
    world.send_message(app)
    world.converge(app)
    world.upload_bundle(app, BLUE)
    world.clock.advance(601)
    world.converge(app)
    assert (state(world, app, 1), world.session(app).version) == (ChangeState.DONE, 2)


def test_a_change_that_has_failed_is_not_sent_to_the_agent_any_more(
    world: World, app: Session
) -> None:
    have = fetch(world, app)["id"]
    world.send_message(app)
    world.converge(app)
    world.clock.advance(601)
    world.converge(app)
    assert inbox.visit(world.deps, world.sandbox_of(app).id, have).assignment is None


def test_a_session_whose_app_crashes_for_good_fails(world: World, app: Session) -> None:
    crashed = Failure(code="app_crashed", message="it keeps crashing")
    world.send_message(app)
    world.converge(app)
    world.report(app, Phase.FAILED, failure=crashed)
    world.converge(app)
    assert world.change(app, 1).failure == crashed
    assert world.session(app).failure == crashed


def test_a_change_that_waits_when_its_session_ends_has_failed(world: World, app: Session) -> None:
    world.send_message(app)
    world.request_end(app)
    world.settle(app)
    assert world.state(app) is SessionState.DESTROYED
    assert state(world, app, 1) is ChangeState.FAILED


# Losing the sandbox during a change


def test_after_a_lost_sandbox_the_earlier_version_runs_and_the_change_is_repeated(
    world: World, app: Session
) -> None:
    world.send_message(app)
    world.converge(app)
    lose_sandbox(world, app)
    world.add_warm_sandbox()
    world.settle(app, rounds=3)
    assert world.sandbox_of(app).state is SandboxState.CLAIMED
    assignment = fetch(world, app)
    assert (assignment["id"], assignment["kind"], assignment["bundle"]["sha256"]) == (
        f"{app.id}/1",
        "bundle",
        app.bundle,
    )
    assert world.session(app).slug == app.slug
    world.report(app, Phase.READY)
    world.publish()
    assert "BeginChange" in world.converge(app).steps
    assert fetch(world, app, assignment["id"])["message"] == "make it blue"
    assert world.session(app).turns.tries == 2


def test_a_change_whose_version_was_kept_is_not_made_again(world: World, app: Session) -> None:
    world.send_message(app)
    world.converge(app)
    world.report(app, Phase.GENERATING)
    world.upload_bundle(app, BLUE)
    lose_sandbox(world, app)
    world.add_warm_sandbox()
    world.settle(app, rounds=3)
    assert fetch(world, app)["bundle"]["sha256"] == digest_of(BLUE)
    assert (state(world, app, 1), world.change(app, 1).version) == (ChangeState.DONE, 2)
    world.report(app, Phase.READY)
    world.publish()
    world.converge(app)
    session = world.session(app)
    assert (session.state, session.version, session.turns.next_number) == (
        SessionState.READY,
        2,
        None,
    )


def test_a_change_that_crashes_its_sandbox_is_not_repeated_for_ever(
    world: World, app: Session
) -> None:
    world.send_message(app)
    for _ in range(3):
        world.converge(app)
        assert world.state(app) is SessionState.GENERATING
        lose_sandbox(world, app)
        world.add_warm_sandbox()
        world.settle(app, rounds=3)
        world.report(app, Phase.READY)
        world.publish()
        world.converge(app)
    failure = world.change(app, 1).failure
    assert failure is not None
    assert failure.code == "sandbox_lost"
    assert (world.state(app), world.session(app).turns.next_number) == (SessionState.READY, None)


def test_a_session_moves_before_its_next_change(world: World, app: Session) -> None:
    host = world.host_of(app)
    world.store.hosts.change(host.id, lambda host: replace(host, drain=Drain.MOVE))
    world.add_host(publish_address="10.0.0.9")
    world.send_message(app)
    assert world.converge(app).steps[0] == "Relocate"
    assert world.state(app) is SessionState.READY


def test_without_room_elsewhere_a_session_is_changed_where_it_is(
    world: World, app: Session
) -> None:
    host = world.host_of(app)
    world.store.hosts.change(host.id, lambda host: replace(host, drain=Drain.MOVE))
    world.send_message(app)
    assert world.converge(app).steps == ("Relocate", "BeginChange", "Wait")
    world.carry_out_change(app, BLUE)
    world.converge(app)
    assert state(world, app, 1) is ChangeState.DONE


# Tokens and reports during a change


def test_the_gateway_is_open_while_the_change_is_written(world: World, app: Session) -> None:
    old_token = world.token(app)
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, old_token)
    world.send_message(app)
    world.converge(app)
    assert access.authorize_generation(world.deps, world.token(app)).id == app.id
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, old_token)
    assert world.store.audit.list() == [], "a call that crosses the next assignment is no attack"


def test_a_late_report_of_the_assignment_before_does_not_count_for_the_change(
    world: World, app: Session
) -> None:
    session = access.authorize(world.deps, world.token(app))
    report = session.report
    assert report is not None
    world.send_message(app)
    world.converge(app)
    assert session.sandbox_id is not None
    late = replace(report, seq=report.seq + 1)
    # `session` was authorized before the change began, and the report arrives after that.
    assert not reports.record_report(world.deps, session, session.sandbox_id, late, [])
    assert world.session(app).report is None
