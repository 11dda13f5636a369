"""The life of a change: the version before goes on being served, whatever becomes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Drain
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.changes import ChangeState, state_of
from orchestrator.domain.sessions.session import Failure, Phase, Session, SessionState
from orchestrator.services.agents import access, bundles, inbox, reports
from orchestrator.services.pool import claims
from orchestrator.services.sessions import changes, versions
from tests.unit.services.world import VISITOR, World, bundle_of, digest_of

BLUE = bundle_of("<h1>blue</h1>")
GREEN = bundle_of("<h1>green</h1>")
BROKEN = Failure(code="app_not_healthy", message="no answer on /")


@pytest.fixture
def app(world: World) -> Session:
    """A READY app that Claude has written."""
    world.host()
    return world.generated()


def assignment(world: World, session: Session, have: str = "") -> dict[str, Any]:
    box = world.sandbox_of(session)
    found = inbox.visit(world.deps, box.id, have).assignment
    assert found is not None
    return found


def state(world: World, session: Session, number: int) -> ChangeState:
    found = world.session(session)
    return state_of(world.change(session, number), found.turns, session_ended=found.ended)


def lose(world: World, session: Session) -> None:
    """Its container dies."""
    claims.retire(world.deps, world.sandbox_of(session), "its container exited")
    world.publish()


# A change that goes well


def test_a_message_becomes_the_next_version_at_the_same_url(world: World, app: Session) -> None:
    have = assignment(world, app)["id"]
    world.say(app)
    assert world.converge(app).steps == ("BeginChange", "Rest")
    under_way = world.session(app)
    assert (under_way.state, under_way.changing, under_way.served) == (
        SessionState.GENERATING,
        True,
        True,
    )
    assert state(world, app, 1) is ChangeState.RUNNING
    told = assignment(world, app, have)
    assert told["id"] == f"{app.id}/1/1"
    assert (told["kind"], told["message"]) == ("change", "make it blue")
    assert told["bundle"]["sha256"] == app.bundle
    assert told["conversation"] == [
        {"role": "user", "text": "a tide calendar"},
        {"role": "assistant", "text": "Tides of the week."},
    ]
    world.carry_out(app, BLUE)
    world.converge(app)
    after = world.session(app)
    assert (after.state, after.version, after.bundle) == (SessionState.READY, 2, digest_of(BLUE))
    assert (after.slug, after.sandbox_id) == (app.slug, app.sandbox_id)
    done = world.change(app, 1)
    assert (done.version, done.summary, done.failure) == (2, "It is blue.", None)
    assert [
        (one.version, one.change, one.summary) for one in versions.of_session(world.deps, after)
    ] == [
        (1, 0, "Tides of the week."),
        (2, 1, "It is blue."),
    ]
    assert inbox.visit(world.deps, world.sandbox_of(app).id, told["id"]).assignment is None


def test_its_route_is_live_all_the_while(world: World, app: Session) -> None:
    world.say(app)
    for _ in range(3):
        world.converge(app)
        world.publish()
        assert app.slug in {route.slug for route in world.proxy.tables[-1].routes}


def test_messages_are_carried_out_one_after_the_other(world: World, app: Session) -> None:
    world.say(app, "blue")
    world.say(app, "green")
    world.converge(app)
    assert (state(world, app, 1), state(world, app, 2)) == (
        ChangeState.RUNNING,
        ChangeState.QUEUED,
    )
    world.carry_out(app, BLUE)
    assert "BeginChange" in world.converge(app).steps
    told = assignment(world, app, f"{app.id}/1/1")
    assert told["message"] == "green"
    assert [one["text"] for one in told["conversation"]][2:] == ["blue", "It is blue."]
    world.carry_out(app, GREEN, "It is green.")
    world.converge(app)
    assert (state(world, app, 2), world.session(app).version) == (ChangeState.DONE, 3)


def test_a_message_from_before_the_app_was_there_follows_at_once(
    world: World, session: Session
) -> None:
    world.say(session)
    world.keep(session, bundle_of())
    world.report(session, Phase.READY)
    assert world.converge(session).steps[-2:] == ("BeginChange", "Rest")
    assert world.session(session).version == 1


def test_a_template_is_changed_too_and_is_version_1(world: World) -> None:
    world.host()
    app = world.run(world.ask())
    world.say(app)
    world.converge(app)
    told = assignment(world, app)
    assert told["bundle"]["sha256"] == app.bundle
    assert told["conversation"][0]["text"] == "Start the template kanban."
    world.carry_out(app, BLUE)
    world.converge(app)
    found = world.session(app)
    assert found.version == 2
    known = versions.of_session(world.deps, found)
    assert [(one.version, one.sha256) for one in known] == [
        (1, app.bundle),
        (2, digest_of(BLUE)),
    ]


# Restoring


def test_an_earlier_version_comes_back_without_the_model(world: World, app: Session) -> None:
    world.say(app)
    world.converge(app)
    world.carry_out(app, BLUE)
    world.converge(app)
    changes.restore(world.deps, VISITOR, app.id, 1)
    world.converge(app)
    assert (world.state(app), world.session(app).served) == (SessionState.DEPLOYING, True)
    told = assignment(world, app, f"{app.id}/1/1")
    assert (told["kind"], told["model"], told["bundle"]["sha256"]) == ("bundle", None, app.bundle)
    found = access.authorize(world.deps, told["session_token"])
    assert bundles.bundle_for(world.deps, found, world.sandbox_of(app).id)[0] == app.bundle
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, told["session_token"])
    world.report(app, Phase.READY)
    world.converge(app)
    after = world.session(app)
    assert (after.state, after.version, after.bundle) == (SessionState.READY, 1, app.bundle)
    assert (world.change(app, 2).version, state(world, app, 2)) == (1, ChangeState.DONE)


def test_a_template_comes_back_as_version_1(world: World) -> None:
    world.host()
    app = world.run(world.ask())
    world.say(app)
    world.converge(app)
    world.carry_out(app, BLUE)
    world.converge(app)
    changes.restore(world.deps, VISITOR, app.id, 1)
    world.converge(app)
    assert assignment(world, app, f"{app.id}/1/1")["bundle"]["sha256"] == app.bundle
    world.report(app, Phase.READY)
    world.converge(app)
    assert world.session(app).bundle == app.bundle


def test_what_runs_by_the_time_of_its_turn_is_done_at_once(world: World, app: Session) -> None:
    world.say(app)
    changes.restore(world.deps, VISITOR, app.id, 1)
    world.converge(app)
    world.report(app, Phase.READY, setback=BROKEN)
    world.converge(app)
    assert world.state(app) is SessionState.READY
    assert (state(world, app, 1), state(world, app, 2)) == (ChangeState.FAILED, ChangeState.DONE)


# A change that comes to nothing


def test_a_change_that_fails_leaves_what_was_there(world: World, app: Session) -> None:
    world.say(app)
    world.converge(app)
    world.keep(app, BLUE, healthy=False)
    world.report(app, Phase.READY, setback=BROKEN)
    world.converge(app)
    after = world.session(app)
    assert (after.state, after.version, after.bundle) == (SessionState.READY, 1, app.bundle)
    assert after.failure is None
    assert (world.change(app, 1).failure, world.change(app, 1).version) == (BROKEN, None)
    known = versions.of_session(world.deps, after)
    assert [(one.version, one.healthy) for one in known] == [(1, True), (2, False)]


def test_one_that_takes_too_long_is_given_up(world: World, app: Session) -> None:
    world.say(app)
    world.converge(app)
    token = world.token(app)
    world.clock.advance(601)
    world.converge(app)
    failure = world.change(app, 1).failure
    assert failure is not None
    assert failure.code == "generation_timeout"
    assert world.state(app) is SessionState.READY
    found = access.authorize(world.deps, token)
    with pytest.raises(errors.Forbidden):
        bundles.keep_bundle(world.deps, found, BLUE, digest_of(BLUE))
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, token)


def test_one_that_was_kept_in_time_is_done_however_late_that_is_heard(
    world: World, app: Session
) -> None:
    world.say(app)
    world.converge(app)
    world.keep(app, BLUE)
    world.clock.advance(601)
    world.converge(app)
    assert (state(world, app, 1), world.session(app).version) == (ChangeState.DONE, 2)


def test_an_agent_that_hears_of_it_too_late_is_told_nothing(world: World, app: Session) -> None:
    have = assignment(world, app)["id"]
    world.say(app)
    world.converge(app)
    world.clock.advance(601)
    world.converge(app)
    assert inbox.visit(world.deps, world.sandbox_of(app).id, have).assignment is None


def test_a_session_with_nothing_left_to_serve_fails(world: World, app: Session) -> None:
    crashed = Failure(code="app_crashed", message="it keeps crashing")
    world.say(app)
    world.converge(app)
    world.report(app, Phase.FAILED, failure=crashed)
    world.converge(app)
    assert world.change(app, 1).failure == crashed
    assert world.session(app).failure == crashed


def test_what_still_waits_when_the_session_ends_has_failed(world: World, app: Session) -> None:
    world.say(app)
    world.want_gone(app)
    world.settle(app)
    assert world.state(app) is SessionState.DESTROYED
    assert state(world, app, 1) is ChangeState.FAILED


# Losing the sandbox meanwhile


def test_a_lost_sandbox_brings_the_version_before_and_then_the_change_again(
    world: World, app: Session
) -> None:
    world.say(app)
    world.converge(app)
    lose(world, app)
    world.warm()
    world.settle(app, rounds=3)
    assert world.sandbox_of(app).state is SandboxState.CLAIMED
    told = assignment(world, app)
    assert (told["id"], told["kind"], told["bundle"]["sha256"]) == (
        f"{app.id}/1",
        "bundle",
        app.bundle,
    )
    assert world.session(app).slug == app.slug
    world.report(app, Phase.READY)
    world.publish()
    assert "BeginChange" in world.converge(app).steps
    assert assignment(world, app, told["id"])["message"] == "make it blue"
    assert world.session(app).turns.tries == 2


def test_a_change_whose_version_was_kept_is_not_made_again(world: World, app: Session) -> None:
    world.say(app)
    world.converge(app)
    world.report(app, Phase.GENERATING)
    world.keep(app, BLUE)
    lose(world, app)
    world.warm()
    world.settle(app, rounds=3)
    assert assignment(world, app)["bundle"]["sha256"] == digest_of(BLUE)
    assert (state(world, app, 1), world.change(app, 1).version) == (ChangeState.DONE, 2)
    world.report(app, Phase.READY)
    world.publish()
    world.converge(app)
    found = world.session(app)
    assert (found.state, found.version, found.turns.next) == (SessionState.READY, 2, None)


def test_a_change_that_takes_its_sandbox_down_is_not_begun_for_ever(
    world: World, app: Session
) -> None:
    world.say(app)
    for _ in range(3):
        world.converge(app)
        assert world.state(app) is SessionState.GENERATING
        lose(world, app)
        world.warm()
        world.settle(app, rounds=3)
        world.report(app, Phase.READY)
        world.publish()
        world.converge(app)
    failure = world.change(app, 1).failure
    assert failure is not None
    assert failure.code == "sandbox_lost"
    assert (world.state(app), world.session(app).turns.next) == (SessionState.READY, None)


def test_a_session_moves_first_and_is_changed_where_it_has_arrived(
    world: World, app: Session
) -> None:
    host = world.host_of(app)
    world.store.hosts.change(host.id, lambda found: replace(found, drain=Drain.MOVE))
    world.host(publish_address="10.0.0.9")
    world.say(app)
    assert world.converge(app).steps[0] == "Relocate"
    assert world.state(app) is SessionState.READY


def test_without_room_elsewhere_it_is_changed_where_it_is(world: World, app: Session) -> None:
    host = world.host_of(app)
    world.store.hosts.change(host.id, lambda found: replace(found, drain=Drain.MOVE))
    world.say(app)
    assert world.converge(app).steps == ("Relocate", "BeginChange", "Rest")
    world.carry_out(app, BLUE)
    world.converge(app)
    assert state(world, app, 1) is ChangeState.DONE


# Who may do what meanwhile


def test_the_gateway_is_open_while_the_change_is_written(world: World, app: Session) -> None:
    before = world.token(app)
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, before)
    world.say(app)
    world.converge(app)
    assert access.authorize_generation(world.deps, world.token(app)).id == app.id
    with pytest.raises(errors.Forbidden):
        access.authorize_generation(world.deps, before)
    assert world.store.audit.list() == [], "a last word that crosses the next job is no attack"


def test_a_late_report_of_the_job_before_is_not_taken_for_this_one(
    world: World, app: Session
) -> None:
    found = access.authorize(world.deps, world.token(app))
    said = found.report
    assert said is not None
    world.say(app)
    world.converge(app)
    assert found.sandbox_id is not None
    late = replace(said, seq=said.seq + 1)
    # It was let in before the change began, and is taken after.
    raced = replace(found, revision=found.revision)
    assert not reports.report(world.deps, raced, found.sandbox_id, late, [])
    assert world.session(app).report is None
