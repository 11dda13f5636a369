"""What agents ask and tell: inbox, tokens, reports, bundles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase, Report, Session, SessionState
from orchestrator.services.agents import access, inbox, reports
from orchestrator.services.pool import claims
from tests.fakes import samples
from tests.unit.services.world import RaceToWrite, World, bundle_of

OVERTAKEN = "the session went on to another attempt between authorisation and write"


def said(seq: int = 1, phase: Phase = Phase.GENERATING) -> Report:
    return Report(seq=seq, phase=phase, progress=40, message="Writing index.html")


# The inbox


def test_a_warm_sandbox_has_nothing_to_do(world: World) -> None:
    world.host()
    box = world.warm()
    assert inbox.visit(world.deps, box.id, "") == inbox.Inbox(assignment=None)


def test_a_first_visit_is_how_a_sandbox_becomes_warm(world: World) -> None:
    world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    world.publish()
    assert inbox.visit(world.deps, box.id, "").assignment is None
    assert world.box(box.id).state is SandboxState.WARM
    assert world.box(box.id).agent_seen_at == world.clock.now()


def test_a_claimed_sandbox_is_told_what_to_generate(world: World, session: Session) -> None:
    box = world.sandbox_of(session)
    assert inbox.visit(world.deps, box.id, "").assignment == {
        "id": f"{session.id}/1",
        "kind": "generate",
        "session_id": session.id,
        "session_token": world.token(session),
        "slug": box.slug,
        "prompt": "a tide calendar for Brest",
        "model": "claude-test",
        "max_tokens": 32_000,
        "bundle": None,
        "start_timeout_s": 45.0,
        "expected_output_tokens": None,
        "limits": {"seconds": 540},
    }


def test_a_template_is_an_assignment_with_a_bundle_and_without_the_prompt(world: World) -> None:
    world.host()
    box = world.warm()
    session = world.ask(prompt="a kanban board", template=None)
    world.converge(session)
    template = world.catalog.get("kanban")
    assignment = inbox.visit(world.deps, box.id, "").assignment
    assert template is not None
    assert assignment is not None
    assert (assignment["kind"], assignment["prompt"], assignment["model"]) == ("bundle", None, None)
    assert assignment["bundle"] == {
        "sha256": template.digest,
        "size_bytes": template.size_bytes,
    }


def test_an_assignment_that_runs_already_is_not_news(world: World, session: Session) -> None:
    box = world.sandbox_of(session)
    assert inbox.visit(world.deps, box.id, f"{session.id}/1").assignment is None
    assert inbox.visit(world.deps, box.id, f"{session.id}/0").assignment is not None


@pytest.mark.parametrize("state", ["stopping", "gone", "broken", "unknown"])
def test_a_sandbox_that_is_not_wanted_is_told_to_exit(world: World, state: str) -> None:
    world.host()
    box = world.warm()
    sandbox_id = box.id
    if state == "unknown":
        sandbox_id = ids.new_sandbox_id()
    elif state == "broken":
        walk(world, sandbox_id, SandboxState.BROKEN)
    else:
        claims.retire(world.deps, box, "a test said so")
        if state == "gone":
            world.publish()
            claims.remove(world.deps, world.box(sandbox_id))
    with pytest.raises(errors.Forbidden) as caught:
        inbox.visit(world.deps, sandbox_id, "")
    assert caught.value.code == "sandbox_retired"


def walk(world: World, sandbox_id: ids.SandboxId, state: SandboxState) -> None:
    box = world.box(sandbox_id)
    moved = box.transition(state, world.clock.now(), "a test said so")
    world.store.sandboxes.save(moved, expected=box.state)


def test_a_session_that_is_to_end_gives_its_sandbox_no_work(world: World, session: Session) -> None:
    world.want_gone(session)
    assert inbox.visit(world.deps, world.sandbox_of(session).id, "").assignment is None


def test_the_visit_that_makes_a_sandbox_warm_wakes_the_pool(world: World) -> None:
    world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(image=world.image), world.clock.now())
    claims.start(world.deps, box, replace_stale=False)
    world.publish()
    world.events.sent.clear()
    inbox.visit(world.deps, box.id, "")
    assert world.events.sent == ["pool"]
    world.clock.advance(20)
    inbox.visit(world.deps, box.id, "")
    assert world.events.sent == ["pool"], "later visits are no news"


# Tokens


def test_a_token_of_the_present_attempt_is_good(world: World, session: Session) -> None:
    assert access.authorize(world.deps, world.token(session)).id == session.id
    assert access.authorize(world.deps, world.token(session), session.id).id == session.id
    assert world.store.audit.list() == []


def end(world: World, session: Session) -> None:
    world.want_gone(session)


def fail(world: World, session: Session) -> None:
    world.give_up(session, permanent=False)
    world.converge(session)


def try_again(world: World, session: Session) -> None:
    fail(world, session)
    world.settle(session, rounds=3)
    assert world.session(session).attempt == 2


@pytest.mark.parametrize("meanwhile", [end, fail, try_again])
def test_a_token_dies_with_its_attempt_and_its_use_is_audited(
    world: World, session: Session, meanwhile: Callable[[World, Session], None]
) -> None:
    token, box = world.token(session), world.sandbox_of(session)
    meanwhile(world, session)
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize(world.deps, token)
    assert caught.value.code == "token_refused"
    (entry,) = world.store.audit.list()
    assert (entry.actor, entry.action, entry.subject) == (box.id, "agent_refused", session.id)
    assert "attempt 1" in entry.detail
    assert token not in entry.detail


def test_a_token_of_another_session_is_refused_and_audited(world: World, session: Session) -> None:
    other = world.ask()
    with pytest.raises(errors.Forbidden):
        access.authorize(world.deps, world.token(session), other.id)
    (entry,) = world.store.audit.list()
    assert entry.subject == other.id
    assert session.id in entry.detail


def test_a_token_of_a_session_that_is_forgotten_is_refused(world: World) -> None:
    grant = SessionGrant(
        session_id=ids.new_session_id(), attempt=1, sandbox_id=ids.new_sandbox_id()
    )
    with pytest.raises(errors.Forbidden):
        access.authorize(world.deps, world.deps.tokens.for_session(grant))
    assert len(world.store.audit.list()) == 1


def test_what_is_no_token_is_refused_without_a_word(world: World, session: Session) -> None:
    sandbox_token = world.deps.tokens.for_sandbox(world.sandbox_of(session).id)
    for token in ("", "nonsense", world.token(session) + "0", sandbox_token):
        with pytest.raises(errors.Unauthorized):
            access.authorize(world.deps, token)
    assert world.store.audit.list() == []


# The gateway


@pytest.mark.parametrize("phase", [None, Phase.GENERATING, Phase.DEPLOYING])
def test_a_session_may_call_claude_while_its_app_is_written(
    world: World, session: Session, phase: Phase | None
) -> None:
    if phase is not None:
        world.report(session, phase)
        world.converge(session)
    assert access.authorize_generation(world.deps, world.token(session)).id == session.id


def test_an_app_that_was_written_can_not_call_claude_with_its_agents_token(
    world: World, session: Session
) -> None:
    world.keep(session, bundle_of())
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize_generation(world.deps, world.token(session))
    assert caught.value.code == "not_generating"


def test_a_running_app_can_not_call_claude(world: World) -> None:
    world.host()
    ready = world.run(world.ask(prompt="a tide calendar for Brest", template=None))
    assert ready.bundle is None
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize_generation(world.deps, world.token(ready))
    assert caught.value.code == "not_generating"


def test_a_token_that_is_over_calls_nobody(world: World, session: Session) -> None:
    token = world.token(session)
    world.want_gone(session)
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize_generation(world.deps, token)
    assert caught.value.code == "token_refused"


# Reports


def test_a_report_is_kept_told_and_looked_at(world: World, session: Session) -> None:
    world.queue.nudges.clear()
    assert reports.report(
        world.deps, session, world.sandbox_of(session).id, said(), ["line 1", "line 2"]
    )
    found = world.session(session)
    assert found.report == said()
    assert found.state is SessionState.PROVISIONING, "only converge moves a session"
    assert world.queue.nudged == [session.id]
    assert f"session:{session.id}" in world.events.sent
    assert [line.text for line in world.store.logs.tail(session.id, 9)] == ["line 1", "line 2"]


def test_progress_within_a_phase_bothers_no_worker(world: World, session: Session) -> None:
    world.report(session, Phase.GENERATING)
    world.queue.nudges.clear()
    assert world.report(session, Phase.GENERATING)
    assert world.queue.nudged == []


def test_a_repeated_report_is_refused_but_its_lines_are_kept(
    world: World, session: Session
) -> None:
    reports.report(world.deps, session, world.sandbox_of(session).id, said(), [])
    again = world.session(session)
    assert not reports.report(world.deps, again, world.sandbox_of(session).id, said(), ["a line"])
    assert world.session(session) == again
    assert len(world.store.logs.tail(session.id, 9)) == 1


def test_a_report_that_loses_a_race_is_written_all_the_same(world: World, session: Session) -> None:
    world.store = RaceToWrite(world.store, times=2)
    assert reports.report(world.deps, session, world.sandbox_of(session).id, said(), [])
    assert world.session(session).report == said()


def test_a_report_of_an_attempt_that_was_overtaken_is_not_taken_for_the_next_ones(
    world: World, session: Session
) -> None:
    authorized = access.authorize(world.deps, world.token(session))
    sender = world.sandbox_of(session).id
    try_again(world, session)
    world.warm()
    world.clock.jump_to(world.session(session).due_at)
    world.converge(session)
    assert world.state(session) is SessionState.PROVISIONING
    assert not reports.report(world.deps, authorized, sender, said(9, Phase.READY), []), OVERTAKEN
    assert world.session(session).report is None
