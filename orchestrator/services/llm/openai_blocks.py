"""Puts the pieces of a streamed chat completion in order: one content block after the other. Pure.

The Messages API ends a block before the next one begins. An OpenAI-compatible endpoint may mix the
pieces of several tool calls, and of text. The block that began first is passed on at once; what
belongs to later ones waits until it has ended. Called by `openai_answer`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.contract import surrogates
from orchestrator.domain import errors
from orchestrator.domain.llm import thoughts, tool_ids
from orchestrator.services.llm.openai_wire import ToolCall

Json = dict[str, Any]

_REPEATED_MAX_CHARS = 512 * 1024  # of arguments that are known again if they come once more
_MARK = re.compile(r'\\.|[\\"{}]', re.DOTALL)


class Blocks:
    """The blocks of one message: `add_text` and `add_call` as pieces come, then `finish`."""

    def __init__(self, answer_id: str) -> None:
        """`answer_id` is our name of the answer."""
        self._answer_id = answer_id
        self._blocks: list[_Block] = []
        self._passed_on = 0  # so many blocks have ended
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}  # as the endpoint calls them
        self._by_index: dict[int, _Call] = {}  # the latest one of each
        self.output_bytes = 0  # of all pieces that have been passed on

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def add_text(self, text: str) -> Iterator[Json]:
        """The events for a piece of text."""
        self._text_block("text").add(text)
        return self._pass_on()

    def add_thought(self, field: str, text: str) -> Iterator[Json]:
        """The events for a piece of what the model thinks. `field` is where the endpoint has it."""
        block = self._text_block("thinking")
        block.signature = block.signature or thoughts.signature(field)
        block.add(text)
        return self._pass_on()

    def add_call(self, piece: ToolCall) -> Iterator[Json]:
        """The events for a tool call, or a piece of one.

        Raises errors.Temporary if it belongs to a call that has ended, or to none.
        """
        call = self._owner(piece) or self._begin(piece)
        news = call.read(piece)
        if call.has_ended and news.strip():
            raise errors.Temporary("the endpoint goes on with a tool call that has ended")
        call.add(news)
        return self._pass_on()

    def finish(self) -> Iterator[Json]:
        """The events for all that waits, and for the end of the last block."""
        return self._pass_on(is_last=True)

    def _text_block(self, kind: str) -> _Block:
        """The last block if it is of this kind, else a new one."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.start["type"] != kind:
            signature = {"signature": ""} if kind == "thinking" else {}
            last = _Block(start={"type": kind, kind: "", **signature})
            self._blocks.append(last)
        return last

    def _owner(self, piece: ToolCall) -> _Call | None:
        """The call that a piece belongs to; None: it begins one.

        Endpoints number calls as they like: all with 0, or not at all. An id or a name may come
        once, or again with every piece; an id may be another one each time, or the same for all.
        """
        call = self._by_id.get(piece.id)
        if call is None and piece.id and piece.function.name:
            return None
        call = call or self._latest(piece.index)
        return None if call is None or call.is_over_at(piece) else call

    def _latest(self, index: int | None) -> _Call | None:
        last = self._calls[-1] if self._calls else None
        if index is None or last is None or last.index is None:
            return last
        return self._by_index.get(index)

    def _begin(self, piece: ToolCall) -> _Call:
        if not piece.function.name:
            raise errors.Temporary("the endpoint sends a piece of a tool call that hasn't begun")
        call_id = tool_ids.issue(self._answer_id, len(self._calls), piece.id)
        name = piece.function.name
        call = _Call(
            start={"type": "tool_use", "id": call_id, "name": name, "input": {}},
            name=name,
            given_id=piece.id,
            index=piece.index,
        )
        self._blocks.append(call)
        self._calls.append(call)
        if piece.id:
            self._by_id[piece.id] = call
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call

    def _pass_on(self, *, is_last: bool = False) -> Iterator[Json]:
        while self._passed_on < len(self._blocks):
            number, block = self._passed_on, self._blocks[self._passed_on]
            ends = is_last or (number + 1 < len(self._blocks) and self._is_over(block))
            if not block.has_begun:
                if not (ends or block.may_begin):
                    return
                block.has_begun = True
                yield {"type": "content_block_start", "index": number, "content_block": block.start}
            if piece := block.take(ends=ends):
                self.output_bytes += len(piece.encode())
                delta = block.delta(piece)
                yield {"type": "content_block_delta", "index": number, "delta": delta}
            if not ends:
                return
            block.has_ended = True
            self._passed_on += 1
            if block.signature:
                delta = {"type": "signature_delta", "signature": block.signature}
                yield {"type": "content_block_delta", "index": number, "delta": delta}
            yield {"type": "content_block_stop", "index": number}

    def _is_over(self, block: _Block) -> bool:
        """Whether a block is that others follow. The arguments of a call that began with an empty
        object may come until another block has some content."""
        return block.is_whole or (block.is_hollow and self._blocks[-1].has_content)


class _ObjectEnd:
    """Watches a JSON object arrive in pieces, for its end. Each character is read once."""

    def __init__(self, *, is_quoted: bool = False) -> None:
        """`is_quoted`: it comes as a JSON string, and ends with that."""
        self._is_quoted = is_quoted
        self._unread: list[str] = []
        self._depth = 0
        self._is_in_string = False
        self._is_escaping = False  # the last character was a backslash
        self._is_reached = False

    def feed(self, piece: str) -> None:
        self._unread.append(piece)

    @property
    def is_reached(self) -> bool:
        """Read lazily: a call that is followed by no other block isn't asked."""
        text, self._unread = "".join(self._unread), []
        if text and not self._is_reached:
            self._read(text)
        return self._is_reached

    def _read(self, text: str) -> None:
        start = int(self._is_escaping)
        self._is_escaping = False
        for match in _MARK.finditer(text, start):
            mark = match.group()
            if mark == "\\":  # the last character; what it escapes is still to come
                self._is_escaping = True
            elif mark == '"':
                self._is_in_string = not self._is_in_string
                self._is_reached = self._is_reached or (self._is_quoted and not self._is_in_string)
            elif mark in "{}" and not self._is_in_string:
                self._depth += 1 if mark == "{" else -1
                self._is_reached = self._is_reached or self._depth == 0


def _is_empty_object(text: str) -> bool:
    return text.strip() == "{}"


def _unquoted(text: str) -> str:
    """The text in a JSON string; as it is if it is none."""
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return surrogates.paired(decoded) if isinstance(decoded, str) else text


@dataclass(kw_only=True)
class _Block:
    """A block of text or of thoughts; `_Call` is the other kind."""

    start: Json
    signature: str = ""  # of thoughts
    has_begun: bool = False
    has_ended: bool = False
    is_hollow: bool = False  # of a call: an empty object came in place of arguments
    _waiting: list[str] = field(default_factory=list)

    @property
    def may_begin(self) -> bool:
        """Whether all is known that its start says."""
        return True

    @property
    def has_content(self) -> bool:
        """Whether there is something to pass on."""
        return bool(self._waiting)

    @property
    def is_whole(self) -> bool:
        """Whether nothing more can belong to it, once another block has begun."""
        return True

    def add(self, piece: str) -> None:
        if piece:
            self._waiting.append(piece)

    def take(self, *, ends: bool) -> str:
        """What isn't passed on yet. Half of a character waits for the other one, unless the block
        `ends`."""
        text = "".join(self._waiting)
        is_half = not ends and surrogates.ends_in_half(text)
        self._waiting = [text[-1]] if is_half else []
        return surrogates.paired(text[:-1] if is_half else text)

    def delta(self, piece: str) -> Json:
        kind = self.start["type"]
        return {"type": f"{kind}_delta", kind: piece}


@dataclass(kw_only=True)
class _Call(_Block):
    """A tool call. For each piece ask whether it `is_over_at` it; if not, `add` what it adds as
    `read` gives it."""

    name: str
    given_id: str  # the endpoint's
    index: int | None
    _arguments: list[str] = field(default_factory=list)  # as they came
    _arguments_chars: int = 0
    _is_cumulative: bool = False  # each piece repeats the ones before
    _end: _ObjectEnd = field(default_factory=_ObjectEnd)
    _is_quoted: bool | None = None  # the object is encoded twice; None: nobody knows yet

    @property
    def may_begin(self) -> bool:
        """A name may come in pieces, until there are arguments."""
        return self.is_hollow or bool(self._arguments)

    @property
    def is_whole(self) -> bool:
        return self._end.is_reached

    def is_over_at(self, piece: ToolCall) -> bool:
        """Whether this piece begins another call, though it says nothing else that differs."""
        name, is_same = piece.function.name, self._has_numbers_of(piece)
        if not name:
            return False
        if name != self.name:
            # The rest of the name comes with the call's id again, or without any.
            return self.may_begin or not (is_same or (self.given_id and not piece.id))
        if is_same and not self._news(piece.function.arguments).strip():
            return False  # the call again
        return self.is_whole or (self.is_hollow and not is_same)

    def read(self, piece: ToolCall) -> str:
        """The arguments that a piece of this call adds."""
        name, given = piece.function.name, piece.function.arguments
        if name != self.name and not self.may_begin:
            self.name = name if name.startswith(self.name) else self.name + name
            self.start["name"] = self.name
        news = self._news(given)
        if len(news) < len(given):
            self.is_hollow = self.is_hollow or _is_empty_object(given)
            self._is_cumulative = self._is_cumulative or not _is_empty_object(given)
        return news

    def _has_numbers_of(self, piece: ToolCall) -> bool:
        is_same_id = bool(piece.id) and piece.id == self.given_id
        return is_same_id and piece.index in (None, self.index)

    def _news(self, given: str) -> str:
        """What these arguments add. Some endpoints begin or end a call with an empty object, or
        repeat with each piece what they have sent."""
        if _is_empty_object(given) and (not self._arguments or self.is_whole):
            return ""
        if not self._arguments or not self._arguments_chars <= len(given) <= _REPEATED_MAX_CHARS:
            return given
        self._arguments = ["".join(self._arguments)]
        return given[self._arguments_chars :] if self._is_repeated_in(given) else given

    def _is_repeated_in(self, given: str) -> bool:
        """What is no JSON one after the other is the same once more. An object in an object may
        begin like that."""
        text = self._arguments[0]
        if not given.startswith(text) or text.lstrip()[:1] not in ("{", '"'):
            return False
        may_nest = text.rstrip().endswith((":", "[", ","))
        return self._is_cumulative or self.is_whole or (len(given) > len(text) and not may_nest)

    def add(self, piece: str) -> None:
        if self._arguments_chars <= _REPEATED_MAX_CHARS:
            self._arguments += [piece] if piece else []
        self._arguments_chars += len(piece)
        if self._is_quoted is None and piece.strip():
            self._is_quoted = piece.lstrip().startswith('"')
            self._end = _ObjectEnd(is_quoted=self._is_quoted)
        super().add(piece)
        self._end.feed(piece)

    def take(self, *, ends: bool) -> str:
        """What is encoded twice waits for its end."""
        if ends and self.is_hollow and not self._arguments:
            return "{}"
        if not self._is_quoted:
            return super().take(ends=ends)
        return _unquoted(super().take(ends=True)) if ends else ""

    def delta(self, piece: str) -> Json:
        return {"type": "input_json_delta", "partial_json": piece}
