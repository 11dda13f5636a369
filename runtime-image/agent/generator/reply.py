"""One answer of the model, assembled from the events of its stream. Pure; used by `model.py`."""

from __future__ import annotations

import json
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
        self._blocks: dict[int, Block] = {}
        self._finished: set[int] = set()
        self._json: dict[int, list[str]] = {}
        self._malformed: set[str] = set()

    def feed(self, event: dict[str, Any]) -> None:
        """Add one event of the Messages API's stream. It asks clients to ignore unknown events.

        Raises KeyError, TypeError, ValueError or AttributeError if the event makes no sense.
        """
        kind = event["type"]
        if kind == "content_block_start":
            self._blocks[int(event["index"])] = _block(event["content_block"])
        elif kind == "content_block_delta":
            self._feed_delta(event["index"], event["delta"])
        elif kind == "content_block_stop":
            self._finish(event["index"])
        elif kind == "message_delta":
            self.stop_reason = event["delta"].get("stop_reason") or self.stop_reason
            if self.stop_reason in CUT_OFF:
                self._drop_cut_call()
            details = event["delta"].get("stop_details") or {}
            self.stop_text = str(details.get("explanation") or "")
            self.output_tokens = int((event.get("usage") or {}).get("output_tokens") or 0)

    @property
    def content(self) -> list[Block]:
        """The finished blocks, as the next request repeats them.

        The service wants thinking blocks back unchanged, but never as the last block.
        """
        blocks = [self._blocks[index] for index in sorted(self._finished)]
        blocks = [block for block in blocks if block["type"] != "text" or block["text"].strip()]
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
                input=None if block["id"] in self._malformed else block["input"],
            )
            for block in self.content
            if block["type"] == "tool_use"
        ]

    @property
    def text(self) -> str:
        """Everything that the model wrote outside of tool calls."""
        blocks = (self._blocks[index] for index in sorted(self._blocks))
        texts = (block["text"] for block in blocks if block["type"] == "text")
        return paired("\n".join(text for text in texts if text)).strip()

    @property
    def has_unfinished_call(self) -> bool:
        unfinished = set(self._blocks) - self._finished
        return any(self._blocks[index]["type"] == "tool_use" for index in unfinished)

    def _feed_delta(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks[index]
        if delta["type"] == "input_json_delta":
            # Joined once at the end: the pieces are small and many.
            self._json.setdefault(index, []).append(delta["partial_json"])
        elif delta["type"] == "text_delta":
            block["text"] = (block.get("text") or "") + delta["text"]
        elif delta["type"] == "thinking_delta":
            block["thinking"] = (block.get("thinking") or "") + delta["thinking"]
        elif delta["type"] == "signature_delta":
            block["signature"] = delta["signature"]

    def _drop_cut_call(self) -> None:
        last = max(self._finished, default=-1)
        if last >= 0 and self._blocks[last].get("id") in self._malformed:
            self._finished.discard(last)

    def _finish(self, index: int) -> None:
        block = self._blocks[index]
        self._finished.add(index)
        for field in ("text", "thinking"):
            if isinstance(block.get(field), str):
                block[field] = paired(block[field])
        if block["type"] != "tool_use":
            return
        text = paired("".join(self._json.pop(index, [])))
        try:
            arguments = json.loads(text) if text else block.get("input") or {}
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict) or _is_deeper(arguments, ARGUMENTS_MAX_DEPTH):
            self._malformed.add(block["id"])
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
