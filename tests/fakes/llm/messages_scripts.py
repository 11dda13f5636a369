"""The turns that the fake Messages API can play, as data, and their content.

`messages_api` plays them; tests build them. Nothing here knows HTTP.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.entrypoints.demo.server import cut_to
from orchestrator.entrypoints.demo.wire import CHARS_PER_TOKEN, Block, Reply

MAX_DELAY_S = 1.0  # no test needs a longer pause between two events


@dataclass(frozen=True, kw_only=True)
class TextTurn:
    """The model answers in words (`stop_reason` end_turn)."""

    text: str
    thinking: str = ""  # not empty: starts with a thinking block


@dataclass(frozen=True, kw_only=True)
class ToolTurn:
    """The model calls a tool (`stop_reason` tool_use)."""

    name: str
    input: Mapping[str, object]
    text: str = ""  # not empty: a text block before the call
    thinking: str = ""


@dataclass(frozen=True, kw_only=True)
class CallsTurn:
    """The model calls several tools in one answer, in this order."""

    calls: Sequence[tuple[str, Mapping[str, object]]]
    text: str = ""
    thinking: str = ""


@dataclass(frozen=True, kw_only=True)
class MalformedToolInput:
    """A tool call whose input is not JSON. Only a stream shows that; otherwise `input` is {}."""

    name: str = "write_files"
    raw: str = '{"manifest": oops'


@dataclass(frozen=True, kw_only=True)
class UnfinishedCall:
    """A tool call whose block never stops, although the message ends as if it had."""

    name: str = "write_file"
    raw: str = '{"path": "index.html", "content": "<h1>'


@dataclass(frozen=True, kw_only=True)
class MaxTokens:
    """The turn stops halfway (`stop_reason` max_tokens), mid-word or mid-JSON."""

    turn: TextTurn | ToolTurn | CallsTurn


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The model declines (`stop_reason` refusal, HTTP 200)."""

    text: str = "I can't help with that."
    category: str | None = "general_harms"  # cyber, bio, general_harms ... or none
    explanation: str | None = "The request was declined."


@dataclass(frozen=True, kw_only=True)
class ErrorTurn:
    """The service fails: with an HTTP status, or with an SSE error after `after_events` events."""

    status: int = 529
    type: str = "overloaded_error"
    message: str = "Overloaded"
    code: str = ""  # a gateway's own code, added to the type
    retry_after: float | None = None  # seconds, sent as the `retry-after` header
    after_events: int | None = None  # only for streams; None: fail with the HTTP status


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The connection breaks after so many events, or in the middle of an unstreamed body."""

    after_events: int
    turn: "Turn" = TextTurn(text="A sentence that nobody will read to its end.")


@dataclass(frozen=True, kw_only=True)
class Drip:
    """Each event, or an unstreamed answer, is sent after a pause of `delay_s`."""

    delay_s: float
    turn: "Turn" = TextTurn(text="Word by word by word.")

    def __post_init__(self) -> None:
        if not 0 <= self.delay_s <= MAX_DELAY_S:
            raise ValueError(f"delay_s must lie in 0..{MAX_DELAY_S}, not {self.delay_s}")


@dataclass(frozen=True, kw_only=True)
class Stall:
    """After so many events come `pings` pings and nothing else; then the connection breaks."""

    after_events: int
    pings: int
    turn: "Turn" = TextTurn(text="A sentence that is never ended.")


Answer = TextTurn | ToolTurn | CallsTurn | MalformedToolInput | UnfinishedCall | MaxTokens | Refusal
Turn = Answer | ErrorTurn | Cut | Drip | Stall


def reply_of(turn: Answer, *, max_tokens: int) -> Reply:
    """The content of a turn, cut off after `max_tokens`."""
    if isinstance(turn, MaxTokens):
        whole = _whole_reply(turn.turn)
        chars = sum(len(block.payload) for block in whole.blocks)
        # Only the last block is cut: a client can use the blocks before it.
        kept_chars = max(chars // 2, chars - len(whole.blocks[-1].payload) // 2)
        return cut_to(whole, min(max_tokens, kept_chars / CHARS_PER_TOKEN))
    return cut_to(_whole_reply(turn), max_tokens)


def _whole_reply(turn: Answer) -> Reply:
    if isinstance(turn, Refusal):
        details = {"type": "refusal", "category": turn.category, "explanation": turn.explanation}
        return Reply(blocks=_text_blocks(turn.text), stop_reason="refusal", stop_details=details)
    if isinstance(turn, MalformedToolInput | UnfinishedCall):
        call = Block(kind="tool_use", payload=turn.raw, tool=turn.name)
        finished = isinstance(turn, MalformedToolInput)
        return Reply(blocks=[replace(call, finished=finished)], stop_reason="tool_use")
    assert not isinstance(turn, MaxTokens)
    thinking = [Block(kind="thinking", payload=turn.thinking)] if turn.thinking else []
    if isinstance(turn, TextTurn):
        return Reply(blocks=[*thinking, *_text_blocks(turn.text)], stop_reason="end_turn")
    calls = [(turn.name, turn.input)] if isinstance(turn, ToolTurn) else turn.calls
    call_blocks = [
        Block(kind="tool_use", payload=json.dumps(tool_input, ensure_ascii=False), tool=name)
        for name, tool_input in calls
    ]
    return Reply(blocks=[*thinking, *_text_blocks(turn.text), *call_blocks], stop_reason="tool_use")


def _text_blocks(text: str) -> list[Block]:
    return [Block(kind="text", payload=text)] if text else []
