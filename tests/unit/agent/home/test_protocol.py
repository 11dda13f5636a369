"""What the agent understands of identity and assignments, and its two policies of waiting."""

from __future__ import annotations

from typing import Any

import pytest
from agent.apps.crashes import WINDOW_S, CrashHistory
from agent.home.backoff import HOME_BACKOFF
from agent.home.identity import parse_line
from agent.home.inbox import quoted
from agent.protocol import (
    AssignmentFailed,
    FailureCode,
    Kind,
    ProtocolError,
    parse_assignment,
)

ASSIGNMENT: dict[str, Any] = {
    "id": "a1",
    "kind": "bundle",
    "session_id": "ses_1",
    "session_token": "t",
    "slug": "ABC",
    "prompt": None,
    "model": None,
    "max_tokens": 0,
    "bundle": {"sha256": "AB", "size_bytes": 3},
    "start_timeout_s": 30,
}


def test_an_assignment_is_read_with_its_slug_in_lower_case() -> None:
    assignment = parse_assignment({"assignment": ASSIGNMENT})

    assert (assignment.kind, assignment.slug) == (Kind.BUNDLE, "abc")
    assert assignment.bundle is not None
    assert assignment.bundle.sha256 == "ab"


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"kind": "other"},
        {"bundle": None},
        {"bundle": {"sha256": 3}},
        {"kind": "generate", "prompt": None},
        {"kind": "change"},
        {"kind": "change", "message": "Blue.", "bundle": None},
        {"conversation": "Hello"},
        {"conversation": [{"role": "robot", "text": "Hello"}]},
        {"conversation": [{"role": "user", "text": ""}]},
        {"expected_output_tokens": -1},
        {"limits": []},
        {"limits": {"turns": 0}},
        {"limits": {"seconds": "long"}},
        {"max_tokens": "many"},
        {"start_timeout_s": -1},
        {"start_timeout_s": True},
    ],
)
def test_an_assignment_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        parse_assignment({"assignment": {**ASSIGNMENT, **change}})


def test_a_change_brings_its_message_the_conversation_and_limits_of_its_own() -> None:
    fields = {
        "kind": "change",
        "message": "Make it blue.",
        "conversation": [
            {"role": "user", "text": "A page"},
            {"role": "assistant", "text": "Done."},
        ],
        "expected_output_tokens": 900,
        "limits": {"turns": 5, "seconds": 60, "colour": "blue"},
    }
    assignment = parse_assignment({"assignment": {**ASSIGNMENT, **fields}})

    assert (assignment.kind, assignment.wish) == (Kind.CHANGE, "Make it blue.")
    assert [said.role for said in assignment.conversation] == ["user", "assistant"]
    assert assignment.expected_output_tokens == 900
    assert (assignment.limits.turns, assignment.limits.seconds) == (5, 60.0)
    assert assignment.limits.repairs == 3


def test_an_assignment_of_an_older_home_has_the_defaults() -> None:
    assignment = parse_assignment({"assignment": ASSIGNMENT})

    assert assignment.conversation == ()
    assert assignment.limits.turns == 60


@pytest.mark.parametrize(
    "received",
    [b"", b'{"sandbox_id": "s", "token": "t", "slug": "x"}', b"no json\n", b"[]\n", b"{}\n"],
)
def test_an_input_that_is_no_whole_identity_is_refused(received: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_line(received)


def test_the_identity_is_the_first_line_and_nothing_after_it() -> None:
    identity = parse_line(b'{"sandbox_id": "s", "token": "t", "slug": "X"}\nmore')

    assert (identity.sandbox_id, identity.token, identity.slug) == ("s", "t", "x")


def test_failures_that_may_pass_are_temporary_and_all_others_permanent() -> None:
    temporary = {code for code in FailureCode if not AssignmentFailed(code, "").permanent}

    assert temporary == {FailureCode.BUNDLE_FETCH_FAILED, FailureCode.PROVIDER_UNAVAILABLE}


def test_retries_wait_at_most_twice_as_long_each_time_up_to_the_cap() -> None:
    ceilings = [HOME_BACKOFF.ceiling_s(attempt) for attempt in (0, 1, 2, 3, 100)]

    assert ceilings == [0.05, 0.1, 0.2, 0.4, 2.0]
    assert all(0 <= HOME_BACKOFF.delay_s(3) < 0.4 for _ in range(50))


def test_the_fifth_crash_within_a_minute_is_the_last() -> None:
    crashes = CrashHistory()

    assert [crashes.restart_delay_s(now) for now in (0, 1, 3, 6, 11)] == [0.5, 1.0, 2.0, 4.0, None]


def test_crashes_that_are_long_past_do_not_count() -> None:
    crashes = CrashHistory()
    delays = [crashes.restart_delay_s(number * WINDOW_S) for number in range(10)]

    assert delays == [0.5] * 10


def test_an_opaque_id_is_quoted_for_the_query() -> None:
    assert quoted("a-1 &ü") == "a%2D1%20%26%C3%BC"
