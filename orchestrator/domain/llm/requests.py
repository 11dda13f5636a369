"""What a request to the Messages API asks for, as far as its cost goes; read before forwarding.

The bound on input tokens rests on one fact: the tokenizers of the models are byte-level, so that a
token stands for at least one byte of text. What isn't text (images, files) has a bound of its own;
what has none (tools that the provider runs, in as many rounds as it likes) is refused.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import errors

# The most that any model takes; longer prompts are turned down by the provider, unbilled.
CONTEXT_TOKENS = 1_000_000
# What the API adds by itself: roles, the instructions for tool use (under 1,000 tokens).
_FIXED_TOKENS = 2_000
_PER_TYPED_TOOL = 4_000  # the provider's own description of bash, text editor, computer, memory
_PER_IMAGE = 8_000  # high resolution images are scaled down to fewer than 5,000

_CLIENT_TOOLS = ("bash_", "text_editor_", "memory_", "computer_2")
_FIELDS = {
    *("model", "messages", "max_tokens", "stream", "system", "prefill", "stop_sequences"),
    *("tools", "tool_choice", "thinking", "temperature", "top_p", "top_k", "speed"),
    *("cache_control", "context_management", "output_config", "output_format", "metadata"),
    *("service_tier", "inference_geo", "diagnostics", "user_profile_id"),
}


class CacheWrite(enum.IntEnum):
    """The dearest way in which a request may write to the provider's prompt cache."""

    NONE = 0
    FIVE_MINUTES = 1
    ONE_HOUR = 2


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request, read."""

    model: str
    max_tokens: int  # of output; 0 for a request that only counts
    stream: bool
    input_bound: int  # tokens of input that the request can't exceed
    cache_write: CacheWrite
    body: Mapping[str, Any]  # decoded


def read(raw: bytes, *, counting: bool = False) -> Ask:
    """Read a request's body; `counting`: one to count_tokens, which has no max_tokens.

    Raises errors.InvalidInput for what isn't a request, and for what can't be bounded.
    """
    body = _decoded(raw)
    _check_fields(body)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _bad("model: Field required", "model")
    return Ask(
        model=model,
        max_tokens=0 if counting else _max_tokens(body),
        stream=body.get("stream") is True,
        input_bound=_input_bound(raw, body),
        cache_write=_cache_write(body),
        body=body,
    )


def canonical(ask: Ask) -> bytes:
    """The same bytes for the same request, however it was spelt."""
    return json.dumps(ask.body, sort_keys=True, separators=(",", ":")).encode()


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad("The request body is not valid JSON", "body") from error
    if not isinstance(body, dict):
        raise _bad("The request body must be a JSON object", "body")
    return body


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Of a field given twice, the provider might read the other one than we do."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _bad("a field occurs twice in one JSON object", "body")
    return made


def _check_fields(body: Mapping[str, Any]) -> None:
    unknown = sorted(set(body) - _FIELDS)
    if unknown:
        raise _bad(f"{unknown[0]}: not offered here, its cost can't be bounded", unknown[0])
    if body.get("speed") not in {None, "standard"}:
        raise _bad("speed: only standard is offered here", "speed")
    if body.get("inference_geo") not in {None, "global", "not_available"}:
        raise _bad("inference_geo: only global is offered here", "inference_geo")
    for name, wanted in (("messages", list), ("tools", list), ("context_management", dict)):
        if body.get(name) is not None and not isinstance(body[name], wanted):
            raise _bad(f"{name}: Input should be a {wanted.__name__}", name)
    for edit in (body.get("context_management") or {}).get("edits") or ():
        if isinstance(edit, dict) and str(edit.get("type", "")).startswith("compact"):
            raise _bad(
                "context_management: compaction by the provider is not offered here", "edits"
            )
    for tool in body.get("tools") or ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in {None, "custom"} and not str(kind).startswith(_CLIENT_TOOLS):
            raise _bad(f"tools: {kind} runs at the provider and is not offered here", "tools")


def _max_tokens(body: Mapping[str, Any]) -> int:
    limit = body.get("max_tokens")
    if type(limit) is not int or limit < 1:
        raise _bad(
            "max_tokens: Input should be an integer greater than or equal to 1", "max_tokens"
        )
    return limit


def _input_bound(raw: bytes, body: Mapping[str, Any]) -> int:
    bound = len(raw) + _FIXED_TOKENS
    for tool in body.get("tools") or ():
        if isinstance(tool, dict) and tool.get("type") not in {None, "custom"}:
            bound += _PER_TYPED_TOOL
    for block in _blocks(body.get("messages") or ()):
        kind, source = block.get("type"), block.get("source")
        if kind == "image" and isinstance(source, dict):
            bound += _PER_IMAGE - len(_base64(source))
        elif kind == "container_upload" or (kind == "document" and not _is_text(source)):
            return CONTEXT_TOKENS  # pages that nobody has counted yet
    return min(max(bound, _FIXED_TOKENS), CONTEXT_TOKENS)


def _blocks(messages: object) -> Iterator[Mapping[str, Any]]:
    """Content blocks where the API reads them as such, those of tool results included."""
    for message in messages if isinstance(messages, list | tuple) else ():
        yield from _blocks_in(message.get("content") if isinstance(message, dict) else None)


def _blocks_in(content: object) -> Iterator[Mapping[str, Any]]:
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        yield block
        if block.get("type") == "tool_result":
            yield from _blocks_in(block.get("content"))
        source = block.get("source")
        if block.get("type") == "document" and isinstance(source, dict):
            yield from _blocks_in(source.get("content"))


def _base64(source: Mapping[str, Any]) -> str:
    data = source.get("data")
    return data if source.get("type") == "base64" and isinstance(data, str) else ""


def _is_text(source: object) -> bool:
    return isinstance(source, dict) and source.get("type") in {"text", "content"}


def _cache_write(value: object) -> CacheWrite:
    """By any cache_control anywhere: one in a place where it means nothing only costs room."""
    found = CacheWrite.NONE
    pending: list[object] = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict):
            control = one.get("cache_control")
            if control is not None:
                long = isinstance(control, dict) and control.get("ttl") == "1h"
                found = max(found, CacheWrite.ONE_HOUR if long else CacheWrite.FIVE_MINUTES)
            pending.extend(one.values())
    return found


def _bad(message: str, field: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, field=field)
