"""A stream that is none of the Messages API is asked for again, like one that broke off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from agent.failures import AssignmentFailed
from agent.generator.messages_api import MessagesApi, Refusal
from agent.generator.model import (
    Clock,
    Interrupted,
    Model,
    OutOfTime,
    events,
    translate_event,
    translate_refusal,
)
from agent.generator.order import Order
from agent.generator.progress import Progress
from agent.generator.reply import Reply

from orchestrator.contract.wire import FailureCode, Limits
from tests.fakes.llm.separators import SEPARATORS

PING = 'data: {"type": "ping"}'


@pytest.mark.parametrize(
    "data", ["{", "[]", '{"type": 5}', "[" * 100_000, "\udcff", "x" * 5_000_000]
)
def test_data_that_is_no_event_interrupts_the_answer(data: str) -> None:
    frame = f"event: x\ndata: {data}\n\n".encode("utf-8", "surrogateescape")
    with pytest.raises(Interrupted, match="makes no sense"):
        list(events([frame]))


def new_model(seconds_per_look: float = 0, limit_s: float = 600) -> Model:
    """A model that nobody answers, at a clock that goes on with each look."""
    order = Order(
        socket="",
        folder="",
        token="",
        request="",
        conversation=(),
        model="m",
        max_tokens=1,
        expected_output_tokens=1,
        limits=Limits(seconds=limit_s),
        upload_max_bytes=1,
    )
    looks = iter(range(10**6))
    clock = Clock(now=lambda: next(looks) * seconds_per_look, sleep=lambda _: None)
    progress = Progress(expected_tokens=1, on_change=lambda _, __: None)
    api = MessagesApi(socket_path="/nowhere.sock", token="t")
    return Model(api, order, progress=progress, clock=clock)


def read(*lines: str, seconds_per_look: float = 0, limit_s: float = 600) -> Reply:
    """What is understood of a stream."""
    reply = Reply()
    frames = (f"{line}\n\n".encode() for line in lines)
    new_model(seconds_per_look, limit_s)._read(frames, reply)
    return reply


@pytest.mark.parametrize(
    "event",
    [
        '{"type": "content_block_start"}',
        '{"type": "content_block_start", "index": "x", "content_block": {"type": "text"}}',
        '{"type": "content_block_start", "index": [], "content_block": {"type": "text"}}',
        '{"type": "message_delta", "delta": 5}',
        '{"type": "error", "error": 5}',
    ],
)
def test_an_event_of_another_form_interrupts_the_answer(event: str) -> None:
    with pytest.raises(Interrupted, match="makes no sense"):
        read(f"data: {event}")


def test_an_answer_ends_with_its_last_event_or_is_interrupted() -> None:
    assert read('data: {"type": "message_stop"}', "data: {").calls == []
    with pytest.raises(Interrupted, match="broke off"):
        read(PING)
    with pytest.raises(Interrupted, match="the model is busy: xxx") as caught:
        read(
            'data: {"type": "error", "error": {"type": "api_error", "message": "%s"}}' % ("x" * 900)
        )
    assert len(caught.value.message) < 600


STOPPED = 'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}'


def test_an_answer_with_its_reason_to_stop_needs_no_last_event() -> None:
    assert read(STOPPED).stop_reason == "end_turn"
    assert read(STOPPED, "data: [DONE]", "data: [DONE]").stop_reason == "end_turn"
    with pytest.raises(Interrupted, match="broke off"):
        read("data: [DONE]")


@pytest.mark.parametrize(
    "error",
    [
        '{"type": "error", "error": "no room"}',
        '{"error": {"type": "overloaded_error", "message": "no room"}}',
        '{"error": "no room"}',
    ],
)
def test_an_error_within_a_stream_may_have_another_form(error: str) -> None:
    with pytest.raises(Interrupted, match="the model is busy: no room"):
        read(f"data: {error}")


def test_pings_are_not_waited_for_beyond_the_limit_of_silence_or_of_time() -> None:
    with pytest.raises(Interrupted, match="said nothing for 180 s"):
        read(*[PING] * 100, seconds_per_look=50)
    with pytest.raises(OutOfTime):
        read(*[PING] * 100, seconds_per_look=50, limit_s=100)
    with pytest.raises(OutOfTime):
        new_model(limit_s=0).answer([])


def refusal(
    status: int, error: Mapping[str, Any] | None = None, **headers: str
) -> AssignmentFailed | Interrupted:
    return translate_refusal(Refusal(status, error or {}, headers))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_a_status_that_may_pass_interrupts(status: int) -> None:
    passing = refusal(status, None, **{"retry-after": "7"})

    assert isinstance(passing, Interrupted)
    assert (passing.retry_after_s, passing.counts) == (7, 1)


@pytest.mark.parametrize(
    ("headers", "retry_after_s", "counts"),
    [
        ({}, None, 1),
        ({"retry-after": "-5"}, 0, 1),
        ({"retry-after": "soon"}, None, 1),
        ({"x-should-retry": "false"}, None, 3),
        ({"x-should-retry": "true"}, None, 1),
    ],
)
def test_the_headers_say_when_to_ask_again_and_how_much_it_counts(
    headers: dict[str, str], retry_after_s: float | None, counts: int
) -> None:
    passing = refusal(529, None, **headers)

    assert isinstance(passing, Interrupted)
    assert (passing.retry_after_s, passing.counts) == (retry_after_s, counts)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, {}, FailureCode.PROVIDER_AUTH),
        (402, {}, FailureCode.PROVIDER_AUTH),
        (403, {}, FailureCode.PROVIDER_AUTH),
        (404, {"type": []}, FailureCode.GENERATION_FAILED),
        (404, {"message": "x" * 900}, FailureCode.GENERATION_FAILED),
        (404, {"message": 5, "code": {}}, FailureCode.GENERATION_FAILED),
        (402, {"code": "budget_exhausted"}, FailureCode.BUDGET_EXHAUSTED),
        (400, {"type": "permission_error"}, FailureCode.PROVIDER_AUTH),
    ],
)
def test_any_other_status_is_a_failure_with_its_code(
    status: int, error: dict[str, Any], code: FailureCode
) -> None:
    failed = refusal(status, error, **{"x-should-retry": "false"})

    assert isinstance(failed, AssignmentFailed)
    assert failed.code == code
    assert len(failed.message) < 600


@pytest.mark.parametrize(
    "kind", ["rate_limit_error", "overloaded_error", "api_error", "timeout_error"]
)
def test_an_error_within_a_stream_may_pass(kind: str) -> None:
    event: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": 5}}

    assert isinstance(translate_event(event), Interrupted)
    assert isinstance(translate_event({"type": "error", "error": None}), AssignmentFailed)


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_text_may_have_any_character_that_somebody_takes_for_the_end_of_a_line(
    line_end: str,
) -> None:
    event = {"type": "content_block_delta", "delta": {"text": f"a{SEPARATORS}b"}}
    frame = f"data: {json.dumps(event, ensure_ascii=False)}{line_end}{line_end}"
    assert list(events([frame.encode()])) == [event]
