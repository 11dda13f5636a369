"""Fields of a request that an endpoint may refuse to know, and that it can be asked without. Pure.

Strict endpoints answer 400 to a field that is newer than they are. The gateway then asks again
without it, and remembers that for the endpoint. Nothing is left out that changes what an answer
means: what is here makes answers cheaper or faster, or is about the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

REMEMBER_S = 3600.0
"""An endpoint may learn a field, and a session may have tricked it into refusing one."""

# Where the API takes a field. Anywhere else it is a mistake of the client, which stays in: the
# endpoint then refuses the request again, and nothing is remembered. `*`: each item of a list.
_PLACES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "cache_control": (
        (),
        ("tools", "*"),
        ("system", "*"),
        ("messages", "*", "content", "*"),
        ("messages", "*", "content", "*", "content", "*"),
    ),
    "eager_input_streaming": (("tools", "*"),),
    "thinking": ((),),
    "context_management": ((),),
    "metadata": ((),),
    "service_tier": ((),),
    "diagnostics": ((),),
    "user_profile_id": ((),),
    "output_config": ((),),
    "effort": (("output_config",),),
    # of OpenAI
    "stream_options": ((),),
    "parallel_tool_calls": ((),),
    "strict": (("tools", "*", "function"),),
}
_THINKING = frozenset({"thinking", "redacted_thinking"})
# Words for a field that isn't known, as opposed to one whose value is wrong.
_UNKNOWN = re.compile(
    r"extra (inputs?|fields?|arguments?|propert)|additional propert|not permitted|not allowed"
    r"|unknown|unrecogni[sz]ed|unexpected|unsupported|expected tags",
    re.IGNORECASE,
)
# A name that ends its path: `cache_control.ttl` names something else.
_NAME = re.compile(rf"(?<![A-Za-z_])({'|'.join(_PLACES)})(?![A-Za-z_]|\.\w)")


def refused_in(message: str, body: Mapping[str, Any]) -> str | None:
    """The field of `body` that an error's message says the endpoint doesn't know, if any."""
    if not _UNKNOWN.search(message):
        return None
    names = [match.group() for match in _NAME.finditer(message)]
    return next((name for name in names if without(body, [name]) != body), None)


def without(body: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The body without these fields, wherever the API takes them."""
    result: Any = dict(body)
    for name in names:
        if name == "output_config" and _has_format(body):
            continue
        for place in _PLACES[name]:
            result = _remove(result, name, place)
        if name == "thinking":
            result = _without_thoughts(result)
    return dict(result)


def _has_format(body: Mapping[str, Any]) -> bool:
    """Whether the answer must have a format. All else there says how hard the model should try."""
    config = body.get("output_config")
    return isinstance(config, dict) and "format" in config


def _remove(node: Any, name: str, place: tuple[str, ...]) -> Any:
    if place and place[0] == "*":
        return [_remove(item, name, place[1:]) for item in node] if isinstance(node, list) else node
    if not isinstance(node, dict) or node.get("type") in _THINKING:  # the API takes none in these
        return node
    if not place:
        return {field: value for field, value in node.items() if field != name}
    if place[0] not in node:
        return node
    return {**node, place[0]: _remove(node[place[0]], name, place[1:])}


def _without_thoughts(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the thoughts that the model is shown again."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    return {**body, "messages": [_without_thoughts_in(message) for message in messages]}


def _without_thoughts_in(message: Any) -> Any:
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    content = message.get("content")
    if not isinstance(content, list):
        return message
    kept = [
        block
        for block in content
        if not (isinstance(block, dict) and block.get("type") in _THINKING)
    ]
    return {**message, "content": kept}
