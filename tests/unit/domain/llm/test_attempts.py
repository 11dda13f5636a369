"""Which provider to try next: retries and the chain of providers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.llm import attempts
from orchestrator.domain.llm.attempts import Candidate, GiveUp, Pause, Try, Verdict
from orchestrator.domain.llm.provider_errors import ProviderError

FIRST, SECOND = Candidate(name="first"), Candidate(name="second")


def failing(candidate: Candidate, times: int, **headers: str) -> Candidate:
    for _ in range(times):
        candidate = attempts.record_failure(candidate, Verdict.RETRY, headers, 0, 0)
    return candidate


def test_the_first_provider_is_tried_until_it_is_given_up_then_the_next() -> None:
    assert attempts.next_step([FIRST, SECOND], 0, 20) == Try(name="first")
    given_up = failing(FIRST, attempts.TRIES)
    assert attempts.next_step([given_up, SECOND], 0, 20) == Try(name="second")
    assert attempts.next_step([given_up], 0, 20) == GiveUp()


def test_a_back_off_is_waited_for_and_an_open_breaker_is_skipped() -> None:
    pausing = failing(FIRST, 1)
    assert attempts.next_step([pausing, SECOND], 0, 20) == Pause(seconds=0.5)
    blocked = Candidate(name="first", blocked_until_s=10)
    assert attempts.next_step([blocked, SECOND], 0, 20) == Try(name="second")
    assert attempts.next_step([blocked], 0, 20) == Pause(seconds=10)
    assert attempts.next_step([blocked], 0, 9) == GiveUp()


def test_a_provider_whose_back_off_ends_after_the_deadline_is_given_up() -> None:
    later = failing(FIRST, 1, **{"retry-after": "60"})
    assert attempts.next_step([later, SECOND], 0, 20) == Try(name="second")
    assert attempts.next_step([later], 0, 20) == GiveUp()


def test_a_key_that_is_refused_is_not_tried_again() -> None:
    refused = attempts.record_failure(FIRST, Verdict.KEY_REFUSED, {}, 0, 0)
    assert attempts.next_step([refused, SECOND], 0, 20) == Try(name="second")


@pytest.mark.parametrize(
    ("status", "headers", "verdict"),
    [
        (400, {}, Verdict.REFUSED),
        (404, {}, Verdict.REFUSED),
        (413, {}, Verdict.REFUSED),
        (413, {"x-should-retry": "true"}, Verdict.RETRY),
        (401, {}, Verdict.KEY_REFUSED),
        (402, {}, Verdict.NO_CREDIT),
        (403, {"x-should-retry": "true"}, Verdict.KEY_REFUSED),
        (408, {}, Verdict.RETRY),
        (429, {}, Verdict.RETRY),
        (500, {"x-should-retry": "false"}, Verdict.RETRY),
        (529, {}, Verdict.RETRY),
    ],
)
def test_a_status_leads_to_a_verdict(
    status: int, headers: dict[str, str], verdict: Verdict
) -> None:
    assert attempts.judge(status, headers, ProviderError()) is verdict


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict != Verdict.RETRY])
def test_only_trouble_that_may_pass_is_tried_again(verdict: Verdict) -> None:
    assert attempts.record_failure(FIRST, verdict, {}, 0, 0).given_up


def test_a_provider_that_forbids_a_retry_gets_none() -> None:
    assert failing(FIRST, 1, **{"x-should-retry": "false"}).given_up


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert attempts.retry_after_s(headers) == seconds


@given(tries=st.integers(0, 20), spread=st.floats(0, 1, exclude_max=True))
def test_pauses_grow_are_jittered_and_capped(tries: int, spread: float) -> None:
    candidate = Candidate(name="first", tries=tries)
    pause = attempts.record_failure(candidate, Verdict.RETRY, {}, 0, spread).not_before_s
    least = min(8.0, 0.5 * 2**tries)
    assert least <= pause <= least * 1.5
