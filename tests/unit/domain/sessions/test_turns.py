"""Whose turn it is among a session's changes, and how each of them is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.sessions.changes import Change, ChangeKind, ChangeState, state_of
from orchestrator.domain.sessions.session import Failure
from orchestrator.domain.sessions.turns import Turns
from tests.fakes import samples
from tests.fakes.samples import NOW, later

ASKED = Change(
    session_id=samples.session().id, number=2, text="blue", restores=None, created_at=NOW
)
DONE = replace(ASKED, ended_at=later(9), version=2)
FAILED = replace(DONE, version=None, failure=Failure(code="refused", message="no"))


def test_changes_take_turns_by_number() -> None:
    turns = Turns(asked=2)
    assert (turns.next, turns.waiting, turns.under_way) == (1, 2, False)
    turns = turns.begun()
    assert (turns.next, turns.waiting, turns.under_way) == (1, 1, True)
    turns = turns.ended()
    assert (turns.next, turns.waiting, turns.under_way) == (2, 1, False)
    turns = turns.begun().ended()
    assert (turns.next, turns.waiting, turns.under_way) == (None, 0, False)
    assert turns == Turns(asked=2, over=2, given=2)


def test_another_sandbox_begins_the_same_change_anew_and_counts_the_tries() -> None:
    lost = Turns(asked=1).begun().elsewhere()
    assert (lost.next, lost.waiting, lost.under_way) == (1, 1, False)
    again = lost.begun()
    assert (again.given, again.tries) == (1, 2)
    assert again.ended().tries == 0


def test_what_is_over_stays_over_in_another_sandbox() -> None:
    turns = Turns(asked=2).begun().ended().elsewhere()
    assert (turns.next, turns.waiting, turns.under_way) == (2, 1, False)


@pytest.mark.parametrize(
    ("change", "turns", "session_ended", "state"),
    [
        (ASKED, Turns(asked=2), False, ChangeState.QUEUED),
        (ASKED, Turns(asked=2, over=1, given=1), False, ChangeState.QUEUED),
        (ASKED, Turns(asked=2, given=1), False, ChangeState.QUEUED),
        (ASKED, Turns(asked=2, over=1, given=2), False, ChangeState.RUNNING),
        (ASKED, Turns(asked=2, over=1, given=2), True, ChangeState.FAILED),
        (DONE, Turns(asked=2, over=2, given=2), False, ChangeState.DONE),
        (DONE, Turns(asked=2, over=2, given=2), True, ChangeState.DONE),
        (FAILED, Turns(asked=2, over=2), False, ChangeState.FAILED),
    ],
)
def test_the_state_of_a_change_follows_from_turns_and_outcome(
    change: Change, turns: Turns, session_ended: bool, state: ChangeState
) -> None:
    assert state_of(change, turns, session_ended=session_ended) is state


def test_a_change_is_a_message_or_a_restore() -> None:
    assert ASKED.kind is ChangeKind.MESSAGE
    assert replace(ASKED, text="", restores=1).kind is ChangeKind.RESTORE
