"""Requests to the Messages API: what they ask for, and the most they can cost.

The gateway parses each request before it forwards it. The bound on input tokens relies on one fact:
the models' tokenizers work on bytes, so each token stands for at least one byte of text. Images and
files have bounds of their own. What can't be bounded is refused: tools that the provider itself
runs, in as many rounds as it likes. So is what the provider would fetch from somewhere: a sandbox
would get a way out, and an endpoint in our network a way to its neighbours.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.contract import json_bounds
from orchestrator.domain import errors

# The longest prompt that any model takes. The provider refuses longer ones and bills nothing.
CONTEXT_TOKENS = 1_000_000
# Far more than any model writes; a figure that every account can hold.
_MAX_TOKENS_MAX = 100_000_000
# What the API itself adds: roles, and the instructions for tool use (under 1,000 tokens).
_FIXED_TOKENS = 2_000
_PER_TYPED_TOOL = 4_000  # the provider's own description of bash, text editor, computer, memory
_VALUES_MAX = 20_000  # of a whole request; a long conversation has some thousands
_PER_IMAGE = 8_000  # the provider scales images down to fewer than 5,000 tokens

_SOURCES = ("base64", "text", "content")  # of images and documents: what is in the request itself
_CLIENT_TOOLS = ("bash_", "text_editor_", "memory_", "computer_2")
FIELDS = {
    *("model", "messages", "max_tokens", "stream", "system", "prefill", "stop_sequences"),
    *("tools", "tool_choice", "thinking", "temperature", "top_p", "top_k", "speed"),
    *("cache_control", "context_management", "output_config", "output_format", "metadata"),
    *("service_tier", "inference_geo", "diagnostics", "user_profile_id"),
}


class CacheWrite(enum.IntEnum):
    """The dearest way in which a request can write to the provider's prompt cache."""

    NONE = 0
    FIVE_MINUTES = 1
    ONE_HOUR = 2


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One parsed request."""

    model: str
    max_tokens: int  # of output; 0 if it only counts tokens
    stream: bool
    input_bound: int  # the most input tokens that it can have
    cache_write: CacheWrite
    body: Mapping[str, Any]  # decoded


def parse(raw: bytes, *, counting: bool = False) -> ModelRequest:
    """Parse the body of a request. `counting`: it goes to count_tokens and has no max_tokens.

    Raises errors.InvalidInput if it isn't a request, or if its cost can't be bounded.
    """
    body = _decoded(raw)
    _check_fields(body)
    _check_sources(body)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _bad("model: Field required", "model")
    return ModelRequest(
        model=model,
        max_tokens=0 if counting else _max_tokens(body),
        stream=body.get("stream") is True,
        input_bound=_input_bound(raw, body),
        cache_write=_cache_write(body),
        body=body,
    )


def canonical_bytes(request: ModelRequest) -> bytes:
    """The same bytes for equal requests, however their JSON was written."""
    return json.dumps(request.body, sort_keys=True, separators=(",", ":")).encode()


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        json_bounds.check(raw, _VALUES_MAX)
    except ValueError as error:
        raise _bad(f"The request body has {error}", "body") from error
    try:
        body = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_fields)
    except (ValueError, RecursionError) as error:
        raise _bad("The request body is not valid JSON", "body") from error
    if not isinstance(body, dict):
        raise _bad("The request body must be a JSON object", "body")
    return body


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One JSON object. If a field occurred twice, the provider might read the other value."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _bad("a field occurs twice in one JSON object", "body")
    return fields


def _check_fields(body: Mapping[str, Any]) -> None:
    unknown = sorted(set(body) - FIELDS)
    if unknown:
        raise _bad(f"{unknown[0]}: not offered here, its cost can't be bounded", unknown[0])
    if body.get("speed") not in (None, "standard"):
        raise _bad("speed: only standard is offered here", "speed")
    if body.get("inference_geo") not in (None, "global", "not_available"):
        raise _bad("inference_geo: only global is offered here", "inference_geo")
    for name, kind in (("messages", list), ("tools", list), ("context_management", dict)):
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise _bad(f"{name}: Input should be a {kind.__name__}", name)
    edits = (body.get("context_management") or {}).get("edits")
    if edits is not None and not isinstance(edits, list):
        raise _bad("context_management.edits: Input should be a list", "edits")
    for edit in edits or ():
        if isinstance(edit, dict) and str(edit.get("type", "")).startswith("compact"):
            raise _bad(
                "context_management: compaction by the provider is not offered here", "edits"
            )
    for tool in body.get("tools") or ():
        tool_type = tool.get("type") if isinstance(tool, dict) else None
        if tool_type not in (None, "custom") and not str(tool_type).startswith(_CLIENT_TOOLS):
            raise _bad(f"tools: {tool_type} runs at the provider and is not offered here", "tools")


def _max_tokens(body: Mapping[str, Any]) -> int:
    limit = body.get("max_tokens")
    if type(limit) is not int or limit < 1:
        raise _bad(
            "max_tokens: Input should be an integer greater than or equal to 1", "max_tokens"
        )
    if limit > _MAX_TOKENS_MAX:
        raise _bad(f"max_tokens: Input should be at most {_MAX_TOKENS_MAX}", "max_tokens")
    return limit


def _input_bound(raw: bytes, body: Mapping[str, Any]) -> int:
    bound = len(raw) + _FIXED_TOKENS
    for tool in body.get("tools") or ():
        if isinstance(tool, dict) and tool.get("type") not in (None, "custom"):
            bound += _PER_TYPED_TOOL
    for block in _blocks(body):
        kind, source = block.get("type"), block.get("source")
        if kind == "image" and isinstance(source, dict):
            bound += _PER_IMAGE - len(_base64(source))
        elif kind == "document" and not _is_text(source):
            return CONTEXT_TOKENS  # it has pages, and nobody has counted them yet
    return min(max(bound, _FIXED_TOKENS), CONTEXT_TOKENS)


def _check_sources(body: Mapping[str, Any]) -> None:
    for block in _blocks(body):
        source = block.get("source")
        kind = source.get("type") if isinstance(source, dict) else "text"
        if block.get("type") == "container_upload":
            kind = "file"
        if kind not in _SOURCES:
            raise _bad(
                f"source: {kind if isinstance(kind, str) else 'this kind'} is not offered here;"
                f" send the content itself, as one of {', '.join(_SOURCES)}",
                "source",
            )


def _blocks(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All content blocks that the API reads, including those in tool results."""
    yield from _blocks_in(body.get("system"))
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        yield from _blocks_in(message.get("content") if isinstance(message, dict) else None)


def _blocks_in(content: object) -> Iterator[Mapping[str, Any]]:
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        yield block
        yield from _blocks_in(block.get("content"))
        source = block.get("source")
        if isinstance(source, dict):
            yield from _blocks_in(source.get("content"))


def _base64(source: Mapping[str, Any]) -> str:
    data = source.get("data")
    return data if source.get("type") == "base64" and isinstance(data, str) else ""


def _is_text(source: object) -> bool:
    return isinstance(source, dict) and source.get("type") in ("text", "content")


def _cache_write(value: object) -> CacheWrite:
    """The dearest cache_control at any depth.

    One in a place where the API ignores it only makes the reservation larger than needed.
    """
    dearest = CacheWrite.NONE
    pending: list[object] = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            control = node.get("cache_control")
            if control is not None:
                is_long = isinstance(control, dict) and control.get("ttl") == "1h"
                write = CacheWrite.ONE_HOUR if is_long else CacheWrite.FIVE_MINUTES
                dearest = max(dearest, write)
            pending.extend(node.values())
    return dearest


def _bad(message: str, field: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, field=field)
