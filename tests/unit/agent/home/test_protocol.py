"""How the agent reads its identity, asks for its inbox and waits between attempts."""

from __future__ import annotations

import pytest
from agent.failures import AssignmentFailed
from agent.home.backoff import HOME_BACKOFF
from agent.home.identity import parse_line
from agent.home.inbox import quoted

from orchestrator.contract.wire import FailureCode, ProtocolError


@pytest.mark.parametrize(
    "received",
    [
        b"",
        b'{"sandbox_id": "s", "token": "t", "slug": "x"}',
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b"[" * 10_000 + b"\n",
    ],
    ids=range(6),
)
def test_an_input_that_is_no_whole_identity_is_refused(received: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_line(received)


def test_the_identity_is_the_first_line_and_nothing_after_it() -> None:
    identity = parse_line(b'{"sandbox_id": "s", "token": "t", "slug": "X"}\nmore')

    assert (identity.sandbox_id, identity.token, identity.slug) == ("s", "t", "x")


def test_failures_that_may_pass_are_temporary_and_all_others_permanent() -> None:
    temporary = {code for code in FailureCode if not AssignmentFailed(code, "").failure.permanent}

    assert temporary == {FailureCode.BUNDLE_FETCH_FAILED, FailureCode.PROVIDER_UNAVAILABLE}


def test_retries_wait_at_most_twice_as_long_each_time_up_to_the_cap() -> None:
    ceilings = [HOME_BACKOFF.ceiling_s(attempt) for attempt in (0, 1, 2, 3, 100)]

    assert ceilings == [0.05, 0.1, 0.2, 0.4, 2.0]
    assert all(0 <= HOME_BACKOFF.delay_s(3) < 0.4 for _ in range(50))


def test_an_opaque_id_is_quoted_for_the_query() -> None:
    assert quoted("a-1 &ü") == "a%2D1%20%26%C3%BC"
