"""What OpenAI-compatible endpoints say of their thoughts, and get back. Pure.

They send thoughts in a field of each message, and several refuse a conversation in which their own
are missing. For clients thoughts are blocks of the Messages API, which clients return as they came.
Such a block has no signature of Anthropic's; in its place it has the field's name. So the endpoint
gets its thoughts back in the field where it had them, and nobody else gets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELDS = ("reasoning_content", "reasoning", "thinking")
_MARK = "oai-"


def signature(field: str) -> str:
    """The signature of a block with what this field of a message had."""
    return _MARK + field


def field_of(block: Mapping[str, Any]) -> str | None:
    """The field of which an endpoint's thoughts came; None: they are not of such an endpoint."""
    mark = block.get("signature")
    if block.get("type") != "thinking" or not isinstance(mark, str):
        return None
    field = mark.removeprefix(_MARK)
    return field if field in FIELDS and mark == signature(field) else None


def for_messages(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request without the thoughts of OpenAI-compatible endpoints, whose signatures the Messages
    API would refuse; the same object if there are none."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    kept = [_without_thoughts(message) for message in messages]
    if kept == messages:
        return body
    # An answer of thoughts alone is none.
    return {**body, "messages": [message for message in kept if not _is_empty(message)]}


def _without_thoughts(message: Any) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not any(map(_is_foreign, content)):
        return message
    return {**message, "content": [block for block in content if not _is_foreign(block)]}


def _is_foreign(block: Any) -> bool:
    return isinstance(block, dict) and field_of(block) is not None


def _is_empty(message: Any) -> bool:
    return isinstance(message, dict) and message.get("content") == []
