"""Which of a session's changes is next, and the state of each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.changes import Change, ChangeKind, ChangeState, state_of
from orchestrator.domain.sessions.session import Failure
from tests.fakes import samples
from tests.fakes.samples import NOW, later

REQUESTED = Change(
    session_id=samples.session().id, number=2, text="blue", restores=None, created_at=NOW
)
DONE = replace(REQUESTED, ended_at=later(9), version=2)
FAILED = replace(DONE, version=None, failure=Failure(code="refused", message="no"))


def test_changes_take_turns_by_number() -> None:
    turns = Turns(requested=2)
    assert (turns.next_number, turns.waiting, turns.has_running_change) == (1, 2, False)
    turns = turns.start_next()
    assert (turns.next_number, turns.waiting, turns.has_running_change) == (1, 1, True)
    turns = turns.finish_next()
    assert (turns.next_number, turns.waiting, turns.has_running_change) == (2, 1, False)
    turns = turns.start_next().finish_next()
    assert (turns.next_number, turns.waiting, turns.has_running_change) == (None, 0, False)
    assert turns == Turns(requested=2, finished=2, started=2)


def test_another_sandbox_starts_the_same_change_again_and_tries_are_counted() -> None:
    waiting_again = Turns(requested=1).start_next().on_new_sandbox()
    assert (waiting_again.next_number, waiting_again.waiting, waiting_again.has_running_change) == (
        1,
        1,
        False,
    )
    restarted = waiting_again.start_next()
    assert (restarted.started, restarted.tries) == (1, 2)
    assert restarted.finish_next().tries == 0


def test_a_finished_change_stays_finished_in_another_sandbox() -> None:
    turns = Turns(requested=2).start_next().finish_next().on_new_sandbox()
    assert (turns.next_number, turns.waiting, turns.has_running_change) == (2, 1, False)


@pytest.mark.parametrize(
    ("change", "turns", "session_ended", "state"),
    [
        (REQUESTED, Turns(requested=2), False, ChangeState.QUEUED),
        (REQUESTED, Turns(requested=2, finished=1, started=1), False, ChangeState.QUEUED),
        (REQUESTED, Turns(requested=2, started=1), False, ChangeState.QUEUED),
        (REQUESTED, Turns(requested=2, finished=1, started=2), False, ChangeState.RUNNING),
        (REQUESTED, Turns(requested=2, finished=1, started=2), True, ChangeState.FAILED),
        (DONE, Turns(requested=2, finished=2, started=2), False, ChangeState.DONE),
        (DONE, Turns(requested=2, finished=2, started=2), True, ChangeState.DONE),
        (FAILED, Turns(requested=2, finished=2), False, ChangeState.FAILED),
    ],
)
def test_the_state_of_a_change_follows_from_turns_and_outcome(
    change: Change, turns: Turns, session_ended: bool, state: ChangeState
) -> None:
    assert state_of(change, turns, session_ended=session_ended) is state


def test_a_change_is_a_message_or_a_restore() -> None:
    assert REQUESTED.kind is ChangeKind.MESSAGE
    assert replace(REQUESTED, text="", restores=1).kind is ChangeKind.RESTORE
