"""No document takes long to read, whatever its bytes are."""

from __future__ import annotations

import json

import pytest

from orchestrator.contract import json_bounds
from orchestrator.contract.wire import ProtocolError, decode
from orchestrator.domain import errors
from orchestrator.domain.llm import requests

MIB = 1024**2


def many(values: bytes) -> bytes:
    """A megabyte of these values in a list."""
    return b"[" + (values + b",") * (MIB // (len(values) + 1)) + values + b"]"


BOMBS = {
    "lists": many(b"[]"),
    "objects": many(b"{}"),
    "numbers": many(b"1"),
    "texts": many(b'""'),
    "fields": b"{" + b",".join(b'"%d":0' % number for number in range(90_000)) + b"}",
    "behind a text with a quote": b'["\\"",' + many(b"[]") + b"]",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_document_of_too_many_values_is_not_read(bomb: bytes) -> None:
    with pytest.raises(ValueError, match="more than 10000 values"):
        json_bounds.check(bomb, 10_000)
    with pytest.raises(ProtocolError, match="report: has more than 10000 values"):
        decode(bomb, "report")
    with pytest.raises(errors.InvalidInput, match="has more than 20000 values"):
        requests.parse(b'{"model":"m","max_tokens":1,"messages":' + bomb + b"}")


@pytest.mark.parametrize("line", ["x" * 2000, "[1, 2, {3}]" * 200, '\\"' * 1000, "ä," * 1000])
def test_text_may_hold_what_it_likes(line: str) -> None:
    document = {"seq": 1, "logs": [line] * 500, "phase": "ready"}
    assert decode(json.dumps(document).encode(), "report") == document
    assert decode(json.dumps(document, ensure_ascii=False).encode(), "report") == document


def test_a_document_in_another_encoding_is_not_read() -> None:
    """Its bytes would say something else than its characters."""
    with pytest.raises(ProtocolError):
        decode('["a"]'.encode("utf-16"), "report")


def test_as_many_values_as_allowed_are_read() -> None:
    json_bounds.check(json.dumps(list(range(10_000))).encode(), 10_000)
    json_bounds.check(json.dumps(["a,b"] * 10_000).encode(), 10_000)
