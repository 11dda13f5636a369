"""Token counts, read from an answer's bytes while they pass."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.llm import requests
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.services.llm.metering import BodyMeter, StreamMeter, worst_case


def make_request(**fields: Any) -> ModelRequest:
    body = {
        "model": "m",
        "max_tokens": 100,
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
        **fields,
    }
    return requests.parse(json.dumps(body).encode())


def frame(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


START = frame(
    "message_start",
    message={
        "usage": {
            "input_tokens": 20,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 10},
            "cache_read_input_tokens": 5,
            "output_tokens": 1,
        }
    },
)
PIECE = frame("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 30})
END = frame("message_delta", delta={}, usage={"output_tokens": 9, "input_tokens": None})
STOP = frame("message_stop")


def meter_stream(raw: bytes, request: ModelRequest, step: int = 10_000) -> tuple[TokenCounts, bool]:
    meter = StreamMeter(request)
    for start in range(0, len(raw), step):
        meter.feed(raw[start : start + step])
    result = meter.result()
    return result.counts, result.whole


@given(st.integers(1, 200))
def test_a_stream_is_read_however_it_is_cut_into_chunks(step: int) -> None:
    raw = START + frame("ping") + PIECE + END + STOP
    counts, whole = meter_stream(raw, make_request(), step)
    assert whole
    assert counts == TokenCounts(
        input=20, output=9, cache_write_5m=40, cache_write_1h=10, cache_read=5
    )


def test_a_stream_that_broke_off_counts_what_was_streamed() -> None:
    counts, whole = meter_stream(START + PIECE, make_request())
    assert not whole
    assert 30 <= counts.output <= 60
    assert counts.input == 20
    assert meter_stream(START + PIECE * 50, make_request())[0].output == 100


@pytest.mark.parametrize(
    "start", [START, frame("message_start", message={})], ids=["input alone", "nothing"]
)
def test_a_whole_stream_that_does_not_say_its_output_counts_what_was_streamed(start: bytes) -> None:
    request = make_request()
    raw = start + PIECE + frame("message_delta", delta={"stop_reason": "end_turn"}) + STOP
    counts, whole = meter_stream(raw, request)
    assert whole
    assert 30 <= counts.output <= 60
    assert counts.input == (20 if start is START else request.input_bound)


def test_a_call_that_was_never_answered_counts_its_worst_case() -> None:
    streamed = make_request(cache_control={"type": "ephemeral", "ttl": "1h"})
    assert meter_stream(b"", streamed) == (TokenCounts(cache_write_1h=streamed.input_bound), False)
    whole = make_request(stream=False)
    assert worst_case(whole) == TokenCounts(input=whole.input_bound, output=100)


def test_cache_writes_without_details_count_at_the_dearest_that_the_request_allows() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 30}
    body = json.dumps({"type": "message", "usage": usage}).encode()
    for ttl, counted in (("5m", (30, 0)), ("1h", (0, 30))):
        meter = BodyMeter(
            make_request(stream=False, cache_control={"type": "ephemeral", "ttl": ttl})
        )
        meter.feed(body[:9])
        meter.feed(body[9:])
        result = meter.result()
        assert (result.counts.cache_write_5m, result.counts.cache_write_1h) == counted
        assert result.whole


MANY = b'{"usage": {"input_tokens": 1}, "x": [' + b"[]," * 100_000 + b"0]}"


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b'{"usage": 5}', b"[" * 100_000, MANY])
def test_a_body_without_usage_counts_its_worst_case(raw: bytes) -> None:
    request = make_request(stream=False)
    meter = BodyMeter(request)
    meter.feed(raw)
    assert meter.result().counts == worst_case(request)


def test_a_provider_that_says_it_used_more_than_there_is_gives_a_figure_that_can_be_kept() -> None:
    meter = BodyMeter(make_request(stream=False))
    meter.feed(b'{"usage": {"input_tokens": 1%s, "output_tokens": 7}}' % (b"0" * 300))
    counts = meter.result().counts
    assert (counts.input, counts.output) == (1_000_000_000, 7)


def test_nonsense_in_a_stream_is_ignored() -> None:
    raw = b"data: {message_start\n" + b'data: {"type":"message_delta","usage":[]}\n' + START
    counts, _ = meter_stream(raw + END + STOP, make_request())
    assert counts.output == 9


@pytest.mark.parametrize("line_end", [b"\r", b"\r\n"])
def test_lines_may_end_in_each_way_that_a_stream_of_events_allows(line_end: bytes) -> None:
    raw = START + PIECE + END + STOP
    expected = meter_stream(raw, make_request())
    assert meter_stream(raw.replace(b"\n", line_end), make_request()) == expected
    assert expected[1]


def test_an_event_that_does_not_end_counts_with_each_byte() -> None:
    request = make_request(max_tokens=10_000_000)
    counts, whole = meter_stream(START + b"data: " + b"x" * 6_000_000, request, 1_000_000)
    assert (counts.output >= 5_000_000, whole) == (True, False)


USAGES: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({"input_tokens": "20", "output_tokens": 8.5}, (20, 9)),
    ({"input_tokens": 20, "output_tokens": None}, (20, 0)),
    ({"input_tokens": None, "output_tokens": 7}, (0, 7)),
    ({"input_tokens": 0, "output_tokens": 0}, (0, 0)),
    ({"input_tokens": "?", "output_tokens": float("inf")}, (0, 0)),
    ({"input_tokens": True, "output_tokens": True}, (0, 0)),
    ({}, (0, 0)),
]


@pytest.mark.parametrize(("usage", "said"), USAGES, ids=str)
def test_what_a_provider_does_not_count_is_never_free(
    usage: dict[str, Any], said: tuple[int, int]
) -> None:
    request = make_request()
    start = frame("message_start", message={"usage": usage})
    end = frame("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    counts, is_whole = meter_stream(start + PIECE + end + STOP, request)
    assert is_whole
    assert counts.input == (said[0] or request.input_bound)
    assert counts.output == said[1] if said[1] else 30 <= counts.output <= 60

    meter = BodyMeter(make_request(stream=False))
    meter.feed(json.dumps({"usage": usage}).encode())
    body = meter.result().counts
    assert body.input == (said[0] or make_request(stream=False).input_bound)
    assert body.output == (0 if usage.get("output_tokens") == 0 else said[1] or 100)


def test_an_answer_of_nothing_may_have_no_output() -> None:
    usage = {"input_tokens": 20, "output_tokens": 0}
    raw = START + frame("message_delta", delta={"stop_reason": "refusal"}, usage=usage) + STOP
    counts, is_whole = meter_stream(raw, make_request())
    assert (counts.output, is_whole) == (0, True)
