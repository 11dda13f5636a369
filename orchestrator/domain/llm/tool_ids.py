"""Names of tool calls: what clients are told, and what a provider is told again. Pure.

Providers give calls any id: none, the same one twice, `functions.write:0`, 300 characters. Clients
of the Messages API need one that is unique in the conversation and fits its pattern. So the gateway
issues ids of its own, which hold the provider's as far as there is room: nothing has to be
remembered until a conversation comes back. Then the provider is told its own id again, or a short
one that all providers take. The translation of requests and answers uses this, and the gateway
before it asks a provider with the Messages API.

Sources: the pattern is that of the Messages API; Bedrock takes 64 characters, OpenAI 40; Mistral
takes letters and digits alone, and exactly nine.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

ID_MAX_CHARS = 64
_SHORT_CHARS = 9
_LETTERS = string.digits + string.ascii_letters
_PLAIN = frozenset((string.digits + string.ascii_letters + "-").encode())
_ISSUED = re.compile(r"oai_[0-9a-f]{10}[0-9]+_((?:[0-9A-Za-z-]|_[0-9a-f]{2})*)")
_ESCAPED = re.compile(rb"_([0-9a-f]{2})")
_VALID = re.compile(rf"[a-zA-Z0-9_-]{{1,{ID_MAX_CHARS}}}")


def issue(answer_id: str, number: int, given: str) -> str:
    """The id of a call for the client. `answer_id` is our name of the answer, no other has it;
    `number` counts the answer's calls; `given` is the provider's id, or ""."""
    token = hashlib.sha256(answer_id.encode()).hexdigest()[:10]
    own = f"oai_{token}{number}_"
    escaped = _escaped(given) if len(given) <= ID_MAX_CHARS else ""
    return own + escaped if len(own + escaped) <= ID_MAX_CHARS else own


def for_completions(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request whose calls have the ids that an OpenAI-compatible endpoint gave them, or short
    ones."""
    return _renamed(body, _given_in)


def for_messages(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request whose calls have ids that the Messages API takes; the same object if they have."""
    return _renamed(body, lambda name: name if _VALID.fullmatch(name) else "")


def _escaped(given: str) -> str:
    """With letters, digits, `-` and `_` alone."""
    try:
        raw = given.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return ""
    return "".join(chr(byte) if byte in _PLAIN else f"_{byte:02x}" for byte in raw)


def _given_in(name: str) -> str:
    """The provider's id in one that we have issued; "" if there is none."""
    match = _ISSUED.fullmatch(name)
    if match is None:
        return ""
    raw = _ESCAPED.sub(lambda escape: bytes.fromhex(escape[1].decode()), match[1].encode())
    return raw.decode(errors="ignore")


def _short(name: str, number: int) -> str:
    """An id that all providers take. Always the same for the same call, so that what a provider has
    cached of the conversation stays valid."""
    value = int.from_bytes(hashlib.sha256(f"{number} {name}".encode(errors="replace")).digest())
    letters = []
    for _ in range(_SHORT_CHARS):
        value, at = divmod(value, len(_LETTERS))
        letters.append(_LETTERS[at])
    return "".join(letters)


def _renamed(body: Mapping[str, Any], name_of: Callable[[str], str]) -> Mapping[str, Any]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    conversation = _Conversation(name_of)
    renamed = [conversation.renamed(message) for message in messages]
    return body if renamed == messages else {**body, "messages": renamed}


class _Conversation:
    """Gives each call of a conversation a name of its own, and its result the same one."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        """`name_of`: the name to use for a call that the client calls so; "" if there is none."""
        self._name_of = name_of
        self._taken: set[str] = set()
        self._begun: dict[str, int] = {}  # by the client's id: how often it came before
        self._open: dict[str, list[str]] = {}  # by the client's id: calls without a result
        self._last: dict[str, str] = {}  # by the client's id

    def renamed(self, message: Any) -> Any:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list):
            return message
        return {**message, "content": [self._block(block) for block in content]}

    def _block(self, block: Any) -> Any:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_use" and isinstance(block.get("id"), str):
            return {**block, "id": self._begin(block["id"])}
        if kind == "tool_result" and isinstance(block.get("tool_use_id"), str):
            return {**block, "tool_use_id": self._end(block["tool_use_id"])}
        return block

    def _begin(self, given: str) -> str:
        number = self._begun[given] = self._begun.get(given, -1) + 1
        name = self._name_of(given)
        while not name or name in self._taken:
            name, number = _short(given, number), number + 1
        self._taken.add(name)
        self._open.setdefault(given, []).append(name)
        self._last[given] = name
        return name

    def _end(self, given: str) -> str:
        """Of several calls with one id the first result is that of the first call."""
        waiting = self._open.get(given)
        if waiting:
            return waiting.pop(0)
        return self._last.get(given) or self._name_of(given) or _short(given, 0)
