"""Parsing requests to the Messages API: their bounds, and what has none."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.domain.llm import requests
from orchestrator.domain.llm.requests import CONTEXT_TOKENS, CacheWrite

HELLO = [{"role": "user", "content": "Hello"}]


def raw(**fields: Any) -> bytes:
    body = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": HELLO, **fields}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


def test_a_request_is_parsed() -> None:
    request = requests.parse(raw(stream=True))
    assert (request.model, request.max_tokens, request.stream) == ("claude-sonnet-5-5", 100, True)
    assert request.cache_write is CacheWrite.NONE


KINDS = ("document", "image", "tool_result", "container_upload", "custom", "base64", "text", "1h")
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("type", "source", "content", "edits", "data", "cache_control", "ttl")),
            inner | st.sampled_from(KINDS),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(requests.FIELDS)), ODD, max_size=5))
def test_a_field_of_a_wrong_kind_is_an_error_of_the_request(fields: dict[str, Any]) -> None:
    with contextlib.suppress(errors.InvalidInput):
        requests.parse(json.dumps({"model": "m", "max_tokens": 1, **fields}).encode())


@pytest.mark.parametrize(
    "fields",
    [{"speed": []}, {"inference_geo": {}}, {"context_management": {"edits": 5}}],
)
def test_a_field_of_a_wrong_kind_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInput, match=r"speed|inference_geo|edits"):
        requests.parse(raw(**fields))


@given(st.text())
def test_the_bound_is_never_below_the_bytes_of_the_text(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    for ascii_only in (True, False):
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": text}]}
        encoded = json.dumps(body, ensure_ascii=ascii_only).encode()
        assert requests.parse(encoded).input_bound >= len(text.encode())


def test_an_image_counts_as_an_image_and_not_as_its_bytes() -> None:
    data = base64.b64encode(b"\x89PNG" * 100_000).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    picture = {"type": "image", "source": source}
    shown = raw(messages=[{"role": "user", "content": [picture]}])
    assert requests.parse(shown).input_bound < 20_000
    result = {"type": "tool_result", "tool_use_id": "t", "content": [picture, picture]}
    assert (
        requests.parse(raw(messages=[{"role": "user", "content": [result]}])).input_bound < 30_000
    )


def test_what_only_looks_like_an_image_counts_as_text() -> None:
    data = "word " * 50_000
    call = {
        "type": "tool_use",
        "id": "t",
        "name": "n",
        "input": {"type": "image", "source": {"type": "base64", "data": data}},
    }
    body = raw(messages=[{"role": "assistant", "content": [call]}])
    assert requests.parse(body).input_bound >= len(data)


def test_a_document_of_unknown_length_counts_as_the_longest_prompt() -> None:
    data = base64.b64encode(b"%PDF").decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    pdf = {"type": "document", "source": source}
    note = {"type": "document", "source": {"type": "text", "data": "short"}}
    for block, bound in ((pdf, CONTEXT_TOKENS), (note, 10_000)):
        request = requests.parse(raw(messages=[{"role": "user", "content": [block]}]))
        assert request.input_bound <= bound
        assert (request.input_bound == CONTEXT_TOKENS) is (block is pdf)


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"cache_control": {"type": "ephemeral"}}, CacheWrite.FIVE_MINUTES),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, CacheWrite.ONE_HOUR),
        (
            {
                "system": [
                    {"type": "text", "text": "a", "cache_control": {"ttl": "1h"}},
                    {"type": "text", "text": "b", "cache_control": {"ttl": "5m"}},
                ]
            },
            CacheWrite.ONE_HOUR,
        ),
        ({"system": [{"type": "text", "text": "cache_control"}]}, CacheWrite.NONE),
    ],
)
def test_the_dearest_cache_write_is_found(fields: dict[str, Any], written: CacheWrite) -> None:
    assert requests.parse(raw(**fields)).cache_write is written


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 10_000, "not valid JSON"),
        (b"[" * 100_000, "more than 20000 values"),
        (raw().decode().encode("utf-16"), "not valid JSON"),
        (b"[]", "JSON object"),
        (raw(model=None), "model: Field required"),
        (raw(max_tokens=None), "max_tokens"),
        (raw(max_tokens=0), "max_tokens"),
        (raw(max_tokens=10**4000), "max_tokens"),
        (raw(max_tokens=10**8 + 1), "at most"),
        (raw(max_tokens=True), "max_tokens"),
        (b'{"model":"m","max_tokens":1,"max_tokens":9,"messages":[]}', "twice"),
        (raw(mcp_servers=[]), "mcp_servers"),
        (raw(speed="fast"), "speed"),
        (raw(inference_geo="us"), "inference_geo"),
        (raw(tools=[{"type": "web_search_20260318", "name": "web_search"}]), "web_search"),
        (raw(tools=[{"type": "code_execution_20260521", "name": "c"}]), "code_execution"),
        (raw(context_management={"edits": [{"type": "compact_20260112"}]}), "compaction"),
        (raw(tools={}), "tools"),
    ],
)
def test_a_body_that_is_no_request_or_has_no_bound_is_refused_with_the_field(
    body: bytes, message: str
) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        requests.parse(body)


LINK = {"type": "url", "url": "http://169.254.169.254/latest"}
ELSEWHERE = {
    "an image of a URL": {"type": "image", "source": LINK},
    "a document of a URL": {"type": "document", "source": LINK},
    "a stored file": {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
    "a kind to come": {"type": "video", "source": {"type": "bucket"}},
    "no kind": {"type": "image", "source": {}},
    "an odd kind": {"type": "image", "source": {"type": ["base64"]}},
    "a file for a container": {"type": "container_upload", "file_id": "file_1"},
    "in a tool's result": {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [{"type": "image", "source": LINK}],
    },
    "in a document": {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "image", "source": LINK}]},
    },
    "in a result of a kind to come": {
        "type": "any_tool_result",
        "content": [{"type": "document", "source": LINK}],
    },
}


@pytest.mark.parametrize("block", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("counting", [False, True])
def test_what_the_provider_would_fetch_from_elsewhere_is_refused(
    block: dict[str, Any], counting: bool
) -> None:
    for body in (raw(messages=[{"role": "user", "content": [block]}]), raw(system=[block])):
        with pytest.raises(errors.InvalidInput, match="not offered here"):
            requests.parse(body, counting=counting)


def test_a_tool_may_have_a_source_of_any_kind_in_its_input() -> None:
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {"source": LINK}}
    requests.parse(raw(messages=[{"role": "assistant", "content": [call]}]))


def test_tools_that_the_client_runs_are_accepted() -> None:
    tools = [
        {"name": "write_file", "input_schema": {"type": "object"}},
        {"type": "custom", "name": "read_file", "input_schema": {"type": "object"}},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    ]
    with_tools = requests.parse(raw(tools=tools)).input_bound
    assert with_tools > requests.parse(raw()).input_bound + 8_000


def test_a_request_that_only_counts_needs_no_max_tokens() -> None:
    assert requests.parse(raw(max_tokens=None), counting=True).max_tokens == 0


def test_one_request_has_one_canonical_form_however_its_json_is_written() -> None:
    escaped = b'{ "messages":[{"content":"\\u0048ello","role":"user"}],"max_tokens":1,"model":"m"}'
    plain = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"Hello"}]}'
    first, second = requests.parse(escaped), requests.parse(plain)
    assert requests.canonical_bytes(first) == requests.canonical_bytes(second)
    different = requests.parse(plain.replace(b"Hello", b"hello"))
    assert requests.canonical_bytes(first) != requests.canonical_bytes(different)
