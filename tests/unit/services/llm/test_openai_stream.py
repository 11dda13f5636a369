"""The bytes of a streamed chat completion, and of one that came as a whole instead."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.domain import errors
from orchestrator.domain.llm import requests
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.services.llm.openai_stream import CompletionStream

Json = dict[str, Any]

CHUNK = b'data: {"id": "c1", "choices": [{"delta": {"content": "Hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE: Json = {
    "model": "gpt-x",
    "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def make_request() -> ModelRequest:
    body = {"model": "m", "max_tokens": 100, "messages": [], "stream": True}
    return requests.parse(json.dumps(body).encode())


def read(raw: bytes | Sequence[bytes], request: ModelRequest | None = None) -> list[Json]:
    stream = CompletionStream(request or make_request(), "ours")
    events: list[Json] = []
    for piece in [raw] if isinstance(raw, bytes) else raw:
        events += stream.feed(piece)
    return [*events, *stream.end()]


def kinds(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


USUAL = [
    "message_start",
    *("content_block_start", "content_block_delta", "content_block_stop"),
    *("message_delta", "message_stop"),
]


@pytest.mark.parametrize(
    "raw", [CHUNK + DONE, CHUNK + DONE.strip(), b"\xef\xbb\xbf\n" + CHUNK + DONE]
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_stream_is_read_however_it_is_cut(raw: bytes, step: int) -> None:
    assert kinds(read([raw[at : at + step] for at in range(0, len(raw), step)])) == USUAL


def test_it_is_done_when_the_endpoint_says_so() -> None:
    stream = CompletionStream(make_request(), "ours")
    list(stream.feed(CHUNK))
    assert not stream.is_done
    assert list(stream.feed(DONE + CHUNK)) == []
    assert stream.is_done


def test_an_answer_that_came_as_a_whole_becomes_a_stream_with_its_usage() -> None:
    raw = b" \n " + json.dumps(WHOLE, indent=2).encode()
    events = read([raw[:3], raw[3:20], raw[20:]])
    assert kinds(events) == USUAL
    assert (events[0]["message"]["id"], events[0]["message"]["content"]) == ("msg_ours", [])
    assert events[-2]["delta"]["stop_reason"] == "end_turn"
    assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["output_tokens"]) == (3, 2)


def test_a_whole_answer_without_usage_counts_as_the_most_that_it_can_have() -> None:
    request = make_request()
    events = read(json.dumps({**WHOLE, "usage": None}).encode(), request)
    usage = events[-2]["usage"]
    assert usage == {"input_tokens": request.input_bound, "output_tokens": 100}


def test_an_error_that_came_as_a_whole_is_passed_on() -> None:
    (error,) = read(b'{"error": {"message": "slow down", "code": 429}}')
    assert (error["type"], error["error"]["type"]) == ("error", "rate_limit_error")


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "broke off"),
        (CHUNK, "broke off"),
        (b"{}", "no message"),
        (b'{"choices": [', "Expecting value"),
        (b'{"a": "' + b"x" * 9 * 1024**2, "doesn't end"),
        (b"<html>", "broke off"),
        (b"data: {oops\n\n", "Expecting property"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_chat_completion_is_the_endpoints_failure(raw: bytes, fault: str) -> None:
    with pytest.raises((errors.Temporary, ValueError), match=fault):
        read(raw)
