"""The calls of agents: inbox, tokens, reports."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from orchestrator.contract import wire
from orchestrator.contract.wire import Limits
from orchestrator.domain import errors, ids
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase, Report, Session, SessionState
from orchestrator.services.agents import access, inbox, reports
from orchestrator.services.pool import claims
from tests.fakes import samples
from tests.unit.services.world import RaceToWrite, World, bundle_of

OVERTAKEN = "the session began another attempt between authorization and write"


def make_report(seq: int = 1, phase: Phase = Phase.GENERATING) -> Report:
    return Report(seq=seq, phase=phase, progress=40, message="Writing index.html")


# The inbox


def test_a_warm_sandbox_has_nothing_to_do(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    assert inbox.visit(world.deps, sandbox.id, "") == inbox.Inbox(assignment=None)


def test_the_first_visit_makes_a_sandbox_warm(world: World) -> None:
    world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    world.publish()
    assert inbox.visit(world.deps, sandbox.id, "").assignment is None
    assert world.sandbox(sandbox.id).state is SandboxState.WARM
    assert world.sandbox(sandbox.id).agent_seen_at == world.clock.now()


def test_a_claimed_sandbox_is_told_what_to_generate(world: World, session: Session) -> None:
    sandbox = world.sandbox_of(session)
    assert inbox.visit(world.deps, sandbox.id, "").assignment == {
        "id": f"{session.id}/1",
        "kind": "generate",
        "session_id": session.id,
        "session_token": world.token(session),
        "slug": sandbox.slug,
        "prompt": "a tide calendar for Brest",
        "model": "claude-test",
        "max_tokens": 32_000,
        "bundle": None,
        "start_timeout_s": 45.0,
        "upload_max_bytes": 50 * 1024**2,
        "expected_output_tokens": None,
        "limits": Limits(seconds=540, silence_seconds=180).as_json(),
    }


def test_a_template_is_an_assignment_with_a_bundle_and_without_the_prompt(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    session = world.create_session(prompt="a kanban board", template=None)
    world.converge(session)
    template = world.catalog.get("kanban")
    assignment = inbox.visit(world.deps, sandbox.id, "").assignment
    assert template is not None
    assert assignment is not None
    assert (assignment["kind"], assignment["prompt"], assignment["model"]) == ("bundle", None, None)
    assert assignment["bundle"] == {
        "sha256": template.digest,
        "size_bytes": template.size_bytes,
        "packed": base64.b64encode(world.catalog.data(template.digest) or b"").decode(),
    }


def test_a_large_template_does_not_come_with_its_assignment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PACKED_WITHIN_MAX_BYTES", 100)
    world.add_host()
    sandbox = world.add_warm_sandbox()
    world.converge(world.create_session(template="kanban"))
    assignment = inbox.visit(world.deps, sandbox.id, "").assignment
    assert assignment is not None
    assert assignment["bundle"].keys() == {"sha256", "size_bytes"}


def test_an_assignment_that_runs_already_is_not_sent_again(world: World, session: Session) -> None:
    sandbox = world.sandbox_of(session)
    assert inbox.visit(world.deps, sandbox.id, f"{session.id}/1").assignment is None
    assert inbox.visit(world.deps, sandbox.id, f"{session.id}/0").assignment is not None


@pytest.mark.parametrize("state", ["stopping", "gone", "broken", "unknown"])
def test_a_sandbox_that_is_not_wanted_is_told_to_exit(world: World, state: str) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    sandbox_id = sandbox.id
    if state == "unknown":
        sandbox_id = ids.new_sandbox_id()
    elif state == "broken":
        move_to(world, sandbox_id, SandboxState.BROKEN)
    else:
        claims.retire(world.deps, sandbox, "a test said so")
        if state == "gone":
            world.publish()
            claims.remove(world.deps, world.sandbox(sandbox_id))
    with pytest.raises(errors.Forbidden) as caught:
        inbox.visit(world.deps, sandbox_id, "")
    assert caught.value.code == "sandbox_retired"


def move_to(world: World, sandbox_id: ids.SandboxId, state: SandboxState) -> None:
    sandbox = world.sandbox(sandbox_id)
    changed = sandbox.transition(state, world.clock.now(), "a test said so")
    world.store.sandboxes.save(changed, expected=sandbox.state)


def test_a_session_that_is_to_end_gives_its_sandbox_no_work(world: World, session: Session) -> None:
    world.request_end(session)
    assert inbox.visit(world.deps, world.sandbox_of(session).id, "").assignment is None


def test_the_visit_that_makes_a_sandbox_warm_wakes_the_pool(world: World) -> None:
    world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(image=world.image), world.clock.now())
    claims.start(world.deps, sandbox)
    world.publish()
    world.events.sent.clear()
    inbox.visit(world.deps, sandbox.id, "")
    assert world.events.sent == ["pool"]
    world.clock.advance(20)
    inbox.visit(world.deps, sandbox.id, "")
    assert world.events.sent == ["pool"], "later visits wake nobody"


# Tokens


def test_a_token_of_the_current_attempt_is_valid(world: World, session: Session) -> None:
    assert access.authorize(world.deps, world.token(session)).id == session.id
    assert access.authorize(world.deps, world.token(session), session.id).id == session.id
    assert world.store.audit.list() == []


def end(world: World, session: Session) -> None:
    world.request_end(session)


def fail(world: World, session: Session) -> None:
    world.report_failure(session, permanent=False)
    world.converge(session)


def try_again(world: World, session: Session) -> None:
    fail(world, session)
    world.settle(session, rounds=3)
    assert world.session(session).attempt == 2


@pytest.mark.parametrize("meanwhile", [end, fail, try_again])
def test_a_token_dies_with_its_attempt_and_its_use_is_audited(
    world: World, session: Session, meanwhile: Callable[[World, Session], None]
) -> None:
    token, sandbox = world.token(session), world.sandbox_of(session)
    meanwhile(world, session)
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize(world.deps, token)
    assert caught.value.code == "token_refused"
    assert str(caught.value) == "that token is of an attempt that is over"
    (entry,) = world.store.audit.list()
    assert (entry.actor, entry.action, entry.subject) == (sandbox.id, "agent_refused", session.id)
    assert "attempt 1" in entry.detail
    assert token not in entry.detail


def test_a_token_of_another_session_is_refused_and_audited(world: World, session: Session) -> None:
    other = world.create_session()
    with pytest.raises(errors.Forbidden, match=r"^that token is of another session$"):
        access.authorize(world.deps, world.token(session), other.id)
    (entry,) = world.store.audit.list()
    assert entry.subject == other.id
    assert session.id in entry.detail


def test_a_token_of_a_deleted_session_is_refused(world: World) -> None:
    grant = SessionGrant(
        session_id=ids.new_session_id(), attempt=1, sandbox_id=ids.new_sandbox_id()
    )
    with pytest.raises(errors.Forbidden, match=r"^that token is of a session that is gone$"):
        access.authorize(world.deps, world.deps.tokens.for_session(grant))
    assert len(world.store.audit.list()) == 1


def test_a_sandbox_that_repeats_what_is_refused_fills_no_log(
    world: World, session: Session
) -> None:
    deps, token, other = world.deps, world.token(session), world.create_session()

    def ask(times: int) -> None:
        for _ in range(times):
            with pytest.raises(errors.Forbidden):
                access.authorize(deps, token, other.id)

    ask(50)
    assert len(world.store.audit.list()) == 1
    world.clock.advance(60)
    ask(2)
    newest, oldest = world.store.audit.list()
    assert newest.detail == f"{oldest.detail}, and 49 more since the last entry"


def test_an_invalid_token_is_refused_and_not_audited(world: World, session: Session) -> None:
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
    world.upload_bundle(session, bundle_of())
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize_generation(world.deps, world.token(session))
    assert caught.value.code == "not_generating"


def test_a_running_app_can_not_call_claude(world: World) -> None:
    world.add_host()
    ready = world.run_session(
        world.create_session(prompt="a tide calendar for Brest", template=None)
    )
    assert ready.bundle is None
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize_generation(world.deps, world.token(ready))
    assert caught.value.code == "not_generating"


def test_a_token_of_an_ending_session_can_not_call_claude(world: World, session: Session) -> None:
    token = world.token(session)
    world.request_end(session)
    with pytest.raises(errors.Forbidden) as caught:
        access.authorize_generation(world.deps, token)
    assert caught.value.code == "token_refused"


# Reports


def test_a_report_is_kept_announced_and_nudges_converge(world: World, session: Session) -> None:
    world.queue.nudges.clear()
    assert reports.record_report(
        world.deps, session, world.sandbox_of(session).id, make_report(), ["line 1", "line 2"]
    )
    current = world.session(session)
    assert current.report == make_report()
    assert current.state is SessionState.PROVISIONING, "only converge moves a session"
    assert world.queue.nudged == [session.id]
    assert f"session:{session.id}" in world.events.sent
    assert [line.text for line in world.store.logs.tail(session.id, 9)] == ["line 1", "line 2"]


def test_progress_within_a_phase_nudges_no_worker(world: World, session: Session) -> None:
    world.report(session, Phase.GENERATING)
    world.queue.nudges.clear()
    assert world.report(session, Phase.GENERATING)
    assert world.queue.nudged == []


def test_a_repeated_report_is_refused_and_its_lines_are_not_kept_twice(
    world: World, session: Session
) -> None:
    sender = world.sandbox_of(session).id
    reports.record_report(world.deps, session, sender, make_report(), ["a line"])
    current = world.session(session)
    assert not reports.record_report(world.deps, current, sender, make_report(), ["a line"])
    assert world.session(session) == current
    assert len(world.store.logs.tail(session.id, 9)) == 1


def test_the_lines_of_a_late_report_are_not_kept(world: World, session: Session) -> None:
    authorized, sender = world.session(session), world.sandbox_of(session).id
    fail(world, session)
    assert not reports.record_report(world.deps, authorized, sender, make_report(9), ["a line"])
    assert world.store.logs.tail(session.id, 9) == []


def test_a_session_sends_only_so_many_reports_a_second(world: World, session: Session) -> None:
    deps, sender = world.deps, world.sandbox_of(session).id

    def send(seq: int) -> bool:
        return reports.record_report(deps, world.session(session), sender, make_report(seq), ["x"])

    for seq in range(1, 61):
        assert send(seq)
    with pytest.raises(errors.LimitReached) as caught:
        send(61)
    assert caught.value.code == "too_many_reports"
    assert len(world.store.logs.tail(session.id, 99)) == 60
    world.clock.advance(caught.value.retry_after_s)
    assert send(61)


def test_a_report_that_loses_a_race_is_still_written(world: World, session: Session) -> None:
    world.store = RaceToWrite(world.store, times=2)
    assert reports.record_report(
        world.deps, session, world.sandbox_of(session).id, make_report(), []
    )
    assert world.session(session).report == make_report()


def test_a_report_of_an_earlier_attempt_does_not_count_for_the_next_one(
    world: World, session: Session
) -> None:
    authorized = access.authorize(world.deps, world.token(session))
    sender = world.sandbox_of(session).id
    try_again(world, session)
    world.add_warm_sandbox()
    world.clock.jump_to(world.session(session).due_at)
    world.converge(session)
    assert world.state(session) is SessionState.PROVISIONING
    assert not reports.record_report(
        world.deps, authorized, sender, make_report(9, Phase.READY), []
    ), OVERTAKEN
    assert world.session(session).report is None


def test_lines_beyond_a_sessions_rate_are_dropped_and_counted(
    world: World, session: Session
) -> None:
    flood = ["x" * 4_000] * 500
    sender, deps = world.sandbox_of(session).id, world.deps
    seq = 0

    def report() -> None:
        nonlocal seq
        seq += 1
        current = world.session(session)
        assert reports.record_report(deps, current, sender, make_report(seq), flood)

    def last_line() -> str:
        report()
        (last,) = world.store.logs.tail(session.id, 1)
        return last.text

    dropped = 500 - 1024**2 // 4_100
    assert last_line() == f"[{dropped} lines dropped: an app logs at most 64 KiB a second]"
    assert last_line().startswith("[500 lines dropped")
    world.clock.advance(60)
    assert last_line().startswith(f"[{dropped} lines dropped")
