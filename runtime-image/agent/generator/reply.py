"""One answer of the model, put together from the events of its stream. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CUT_OFF = frozenset({"max_tokens", "model_context_window_exceeded"})
"""Reasons to stop that leave the last block wherever it was."""
Block = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call that arrived whole. `input` is None if it is no JSON object."""

    id: str
    name: str
    input: dict[str, Any] | None


class Reply:
    """What has arrived so far. Blocks that were begun and not finished don't count."""

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
        """Take one event of the Messages API's stream; unknown ones are ignored, as it asks for."""
        kind = event["type"]
        if kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
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
        """The finished blocks as the next request repeats them.

        Thinking blocks go back unchanged, the service insists; but none may be the last.
        """
        blocks = [self._blocks[index] for index in sorted(self._finished)]
        blocks = [block for block in blocks if block["type"] != "text" or block["text"].strip()]
        while blocks and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
            blocks.pop()
        return blocks

    @property
    def calls(self) -> list[Call]:
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
        blocks = (self._blocks[index] for index in sorted(self._blocks))
        return "\n".join(b["text"] for b in blocks if b["type"] == "text" and b["text"]).strip()

    @property
    def has_unfinished_call(self) -> bool:
        begun = set(self._blocks) - self._finished
        return any(self._blocks[index]["type"] == "tool_use" for index in begun)

    def _feed_delta(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks[index]
        if delta["type"] == "input_json_delta":
            # Joined once at the end: pieces are small, files are large.
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
        if block["type"] != "tool_use":
            return
        text = "".join(self._json.pop(index, []))
        try:
            given = json.loads(text) if text else block.get("input") or {}
        except ValueError:
            given = None
        if not isinstance(given, dict):
            self._malformed.add(block["id"])
            given = {}
        block["input"] = _encodable(given)


def _encodable(given: dict[str, Any]) -> dict[str, Any]:
    """Without lone surrogates, which JSON can name by an escape and no request can hold."""
    text = json.dumps(given, ensure_ascii=False)
    clean: dict[str, Any] = json.loads(text.encode("utf-8", "replace"))
    return clean
