"""The figures of the planner: back-off, deadlines, and what steps are about."""

from __future__ import annotations

import pytest

from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.session import IN_PROGRESS, SessionState
from tests.fakes.samples import NOW, later


@pytest.mark.parametrize(
    ("attempt", "spread", "seconds"),
    [(1, 0.0, 1.0), (2, 0.0, 2.0), (3, 0.0, 4.0), (9, 0.0, 4.0), (1, 0.5, 1.25), (3, 1.0, 6.0)],
)
def test_the_back_off_doubles_is_capped_and_spreads_by_up_to_half(
    attempt: int, spread: float, seconds: float
) -> None:
    assert planner.backoff_s(attempt, spread) == seconds


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        (SessionState.PROVISIONING, 1.0),
        (SessionState.GENERATING, 2.0),
        (SessionState.DEPLOYING, 3.0),
    ],
)
def test_each_state_of_progress_has_its_deadline(state: SessionState, seconds: float) -> None:
    limits = planner.Deadlines(provisioning_s=1, generating_s=2, deploying_s=3)
    assert planner.deadline_for(state, NOW, limits) == later(seconds)


@pytest.mark.parametrize("state", sorted(set(SessionState) - IN_PROGRESS))
def test_other_states_may_last(state: SessionState) -> None:
    assert planner.deadline_for(state, NOW, planner.Deadlines()) is None
