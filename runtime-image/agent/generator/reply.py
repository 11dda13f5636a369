"""One answer of the model, assembled from the events of its stream. Pure; used by `model.py`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from orchestrator.contract.surrogates import paired

CUT_OFF = frozenset({"max_tokens", "model_context_window_exceeded"})
"""Stop reasons after which the last block may be incomplete."""
ARGUMENTS_MAX_DEPTH = 8
"""Of lists and objects in each other. Our tools take two; the next request repeats all."""
Block = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A complete tool call. `input` is None if it is no JSON object."""

    id: str
    name: str
    input: dict[str, Any] | None


class Reply:
    """What has arrived so far. Unfinished blocks don't count."""

    def __init__(self) -> None:
        self.stop_reason: str | None = None
        self.stop_text = ""  # the service's own words on a refusal
        self.output_tokens = 0  # as the service counted them; at the end of an answer
        self.broke_off = False  # the connection ended before the answer did
        self._blocks: list[Block] = []
        self._at: dict[int, int] = {}  # by the service's number, which may come again: the last one
        self._finished: set[int] = set()
        self._json: dict[int, list[str]] = {}
        self._malformed: set[int] = set()

    def feed(self, event: dict[str, Any]) -> None:
        """Add one event of the Messages API's stream. It asks clients to ignore unknown events.

        Raises KeyError, TypeError, ValueError or AttributeError if the event makes no sense.
        """
        kind = event["type"]
        if kind == "content_block_start":
            block = _block(event["content_block"])
            self._at[int(event["index"])] = len(self._blocks)
            self._blocks.append(block)
        elif kind == "content_block_delta":
            self._feed_delta(self._at[int(event["index"])], event["delta"])
        elif kind == "content_block_stop":
            self._finish(self._at[int(event["index"])])
        elif kind == "message_delta":
            delta = event.get("delta") or {}
            self.stop_reason = delta.get("stop_reason") or self.stop_reason
            if self.stop_reason in CUT_OFF:
                self._drop_cut_call()
            details = delta.get("stop_details") or {}
            self.stop_text = str(details.get("explanation") or "") or self.stop_text
            output_tokens = (event.get("usage") or {}).get("output_tokens")
            self.output_tokens = _count(output_tokens) or self.output_tokens
        elif kind == "message_stop":
            self.end()

    def end(self) -> None:
        """The answer is whole: so are its blocks, also those whose end the service left out. A
        call that isn't has never been finished."""
        if self.stop_reason is None or self.stop_reason in CUT_OFF:
            return
        for at in set(range(len(self._blocks))) - self._finished:
            self._finish(at)
            if at in self._malformed:
                self._finished.discard(at)

    @property
    def content(self) -> list[Block]:
        """The finished blocks, as the next request repeats them.

        The service wants thinking blocks back unchanged, but never as the last block. Blocks of
        kinds that we don't know are not repeated: we can't have put them together.
        """
        blocks = [self._blocks[at] for at in sorted(self._finished)]
        blocks = [block for block in blocks if _can_be_repeated(block)]
        while blocks and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
            blocks.pop()
        return blocks

    @property
    def calls(self) -> list[Call]:
        """The complete tool calls, in order."""
        return [
            Call(
                id=block["id"],
                name=block["name"],
                input=None if at in self._malformed else block["input"],
            )
            for at, block in enumerate(self._blocks)
            if at in self._finished and block["type"] == "tool_use"
        ]

    @property
    def text(self) -> str:
        """Everything that the model wrote outside of tool calls."""
        texts = (block["text"] for block in self._blocks if block["type"] == "text")
        return paired("\n".join(text for text in texts if text)).strip()

    @property
    def has_unfinished_call(self) -> bool:
        return any(
            at not in self._finished and block["type"] == "tool_use"
            for at, block in enumerate(self._blocks)
        )

    def _feed_delta(self, at: int, delta: dict[str, Any]) -> None:
        block = self._blocks[at]
        if delta["type"] == "input_json_delta":
            # Joined once at the end: the pieces are small and many.
            self._json.setdefault(at, []).append(delta["partial_json"])
        elif delta["type"] == "text_delta":
            block["text"] = (block.get("text") or "") + delta["text"]
        elif delta["type"] == "thinking_delta":
            block["thinking"] = (block.get("thinking") or "") + delta["thinking"]
        elif delta["type"] == "signature_delta":
            block["signature"] = delta["signature"]

    def _drop_cut_call(self) -> None:
        last = max(self._finished, default=-1)
        if last in self._malformed:
            self._finished.discard(last)

    def _finish(self, at: int) -> None:
        block = self._blocks[at]
        self._finished.add(at)
        for field in ("text", "thinking"):
            if isinstance(block.get(field), str):
                block[field] = paired(block[field])
        if block["type"] != "tool_use":
            return
        text = paired("".join(self._json.pop(at, [])))
        try:
            arguments = json.loads(text) if text else block.get("input") or {}
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict) or _is_deeper(arguments, ARGUMENTS_MAX_DEPTH):
            self._malformed.add(at)
            arguments = {}
        block["input"] = _encodable(arguments)


def _block(given: dict[str, Any]) -> Block:
    """A block at its start, with the fields that are read later."""
    block = {**given, "type": str(given["type"])}
    if block["type"] == "tool_use":
        block |= {"id": str(given["id"]), "name": str(given["name"])}
    elif block["type"] == "text":
        block["text"] = str(given.get("text") or "")
    return block


def _can_be_repeated(block: Block) -> bool:
    kind = block["type"]
    if kind == "text":
        return bool(block["text"].strip())
    return kind in ("tool_use", "thinking", "redacted_thinking")


def _count(value: object) -> int:
    """A number of tokens; 0 for what is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return int(value)


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if not levels:
        return True
    values = value.values() if isinstance(value, dict) else value
    return any(_is_deeper(below, levels - 1) for below in values)


def _encodable(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments without lone surrogates: JSON can name them, but no request can hold them."""
    encodable: dict[str, Any] = json.loads(paired(json.dumps(arguments, ensure_ascii=False)))
    return encodable
