"""The circuit breaker: a state machine, and the rules around it."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.domain import errors
from orchestrator.domain.llm import breakers
from orchestrator.domain.llm.breakers import MOVES, Breaker, BreakerState, Signal


def open_breaker(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(breakers.FAILURES_TO_OPEN):
        breaker = breakers.failed(breaker, now_s)
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_in_between_does_not_count_on() -> None:
    breaker = Breaker()
    for _ in range(breakers.FAILURES_TO_OPEN - 1):
        breaker = breakers.failed(breaker, 0)
    breaker = breakers.failed(breakers.answered(breaker), 0)
    assert breaker.state is BreakerState.CLOSED
    assert open_breaker().state is BreakerState.OPEN


def test_an_open_one_lets_nothing_through_until_its_rest_is_over() -> None:
    breaker = open_breaker(100)
    assert breakers.ready_at_s(Breaker(), 5) == 5
    assert breakers.ready_at_s(breaker, 101) == 100 + breakers.REST_S
    assert breakers.ready_at_s(breaker, 500) == 500


def test_one_trial_call_at_a_time_tells_whether_the_provider_is_back() -> None:
    trial = breakers.begun(open_breaker())
    assert trial.state is BreakerState.HALF_OPEN
    assert breakers.ready_at_s(trial, 50) > 50
    assert breakers.answered(trial) == Breaker()
    again = breakers.failed(trial, 60)
    assert (again.state, breakers.ready_at_s(again, 60)) == (
        BreakerState.OPEN,
        60 + breakers.REST_S,
    )


def test_a_trial_call_that_is_cancelled_leaves_its_turn_to_another() -> None:
    trial = breakers.begun(open_breaker())
    left = breakers.abandoned(trial)
    assert breakers.ready_at_s(left, 50) == 50
    assert breakers.abandoned(Breaker()) == Breaker()


def test_late_news_of_earlier_calls_moves_no_open_breaker() -> None:
    breaker = open_breaker()
    assert breakers.answered(breaker) == breaker
    assert breakers.failed(breaker, 9) == breaker


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(BreakerState, Signal)))
def test_a_move_that_is_not_in_the_table_is_refused(state: BreakerState, signal: Signal) -> None:
    if (state, signal) in MOVES:
        assert breakers._moved(Breaker(state=state), signal).state is MOVES[state, signal]
    else:
        with pytest.raises(errors.IllegalMove, match=state):
            breakers._moved(Breaker(state=state), signal)
