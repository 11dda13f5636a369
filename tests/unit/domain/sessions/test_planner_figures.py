"""The figures of the planner: back-off, deadlines, and what steps are about."""

from __future__ import annotations

import pytest

from orchestrator.contract.crashes import recovery_pause_s
from orchestrator.domain.sessions import planner, walks
from orchestrator.domain.sessions.session import IN_PROGRESS, SessionState
from tests.fakes.samples import NOW, later


@pytest.mark.parametrize(
    ("attempt", "spread", "seconds"),
    [(1, 0.0, 1.0), (2, 0.0, 2.0), (3, 0.0, 4.0), (9, 0.0, 4.0), (1, 0.5, 1.25), (3, 1.0, 6.0)],
)
def test_the_back_off_doubles_is_capped_and_spreads_by_up_to_half(
    attempt: int, spread: float, seconds: float
) -> None:
    assert planner.spread_out(planner.backoff_s(attempt), spread) == seconds


@pytest.mark.parametrize(
    ("failed", "seconds"), [(1, 0.3), (2, 0.6), (3, 1.2), (5, 4.8), (6, 5.0), (9999, 5.0)]
)
def test_an_app_that_does_not_answer_is_walked_ever_more_rarely(
    failed: int, seconds: float
) -> None:
    assert walks.pause_after(failed).total_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize(("crashes", "seconds"), [(0, 0), (1, 0), (2, 1), (10, 256), (12, 300)])
def test_recoveries_back_off_from_a_second_to_five_minutes(crashes: int, seconds: float) -> None:
    assert recovery_pause_s(crashes) == seconds


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
