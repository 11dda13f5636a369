"""The circuit breaker: a state machine, and the rules around it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.llm import breakers
from orchestrator.domain.llm.breakers import TRANSITIONS, Breaker, BreakerState, Signal


def open_breaker(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(breakers.FAILURES_TO_OPEN):
        breaker = breakers.record_failure(breaker, now_s)
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_starts_the_count_again() -> None:
    breaker = Breaker()
    for _ in range(breakers.FAILURES_TO_OPEN - 1):
        breaker = breakers.record_failure(breaker, 0)
    breaker = breakers.record_failure(breakers.record_answer(breaker), 0)
    assert breaker.state is BreakerState.CLOSED
    assert open_breaker().state is BreakerState.OPEN


def test_an_open_breaker_lets_no_call_through_for_a_while() -> None:
    breaker = open_breaker(100)
    assert breakers.ready_at_s(Breaker(), 5) == 5
    assert breakers.ready_at_s(breaker, 101) == 100 + breakers.OPEN_FOR_S
    assert breakers.ready_at_s(breaker, 500) == 500


def test_one_trial_call_at_a_time_tells_whether_the_provider_is_back() -> None:
    trial = breakers.record_start(open_breaker(), 45)
    assert trial.state is BreakerState.HALF_OPEN
    assert breakers.ready_at_s(trial, 50) > 50
    assert breakers.record_answer(trial).state is BreakerState.CLOSED
    reopened = breakers.record_failure(trial, 60)
    assert (reopened.state, breakers.ready_at_s(reopened, 60)) == (
        BreakerState.OPEN,
        60 + breakers.OPEN_FOR_S,
    )


def test_after_a_trial_call_that_told_nothing_another_may_be_sent_at_once() -> None:
    trial = breakers.record_start(open_breaker(), 45)
    cancelled = breakers.record_nothing(trial)
    assert breakers.ready_at_s(cancelled, 50) == 50
    assert breakers.record_nothing(Breaker()) == Breaker()


@pytest.mark.parametrize("trial_s", [breakers.TRIAL_S, 3600.0])
def test_a_trial_call_that_never_ends_blocks_its_provider_for_a_limited_time(
    trial_s: float,
) -> None:
    trial = breakers.record_start(replace(open_breaker(), trial_s=trial_s), 45)
    ends_s = 45 + trial_s
    assert breakers.ready_at_s(trial, ends_s - 1) > ends_s - 1
    assert breakers.ready_at_s(trial, ends_s) == ends_s
    second = breakers.record_start(trial, ends_s)
    assert second.state is BreakerState.HALF_OPEN
    assert breakers.ready_at_s(second, ends_s) > ends_s
    assert breakers.record_answer(second).state is BreakerState.CLOSED


def test_late_answers_to_earlier_calls_change_no_open_breaker() -> None:
    breaker = open_breaker()
    assert breakers.record_answer(breaker) == breaker
    assert breakers.record_failure(breaker, 9) == breaker


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(BreakerState, Signal)))
def test_a_transition_that_is_not_in_the_table_is_refused(
    state: BreakerState, signal: Signal
) -> None:
    if (state, signal) in TRANSITIONS:
        assert (
            breakers._transition(Breaker(state=state), signal).state is TRANSITIONS[state, signal]
        )
    else:
        with pytest.raises(errors.IllegalTransition, match=state):
            breakers._transition(Breaker(state=state), signal)
