"""Fields of a request that an endpoint may refuse to know, and that it can be asked without. Pure.

Strict endpoints answer 400 or 422 to a field that is newer than they are, each in its own words.
The gateway then asks again without it, and remembers that for the endpoint if the words are about
the field and the request is served. Nothing is left out that changes what an answer means: what is
here makes answers cheaper or faster, or is about the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

REMEMBER_S = 3600.0
"""An endpoint may learn a field, and a session may have tricked it into refusing one."""

# What may be cached, and how.
_CACHED = (
    (),
    ("tools", "*"),
    ("system", "*"),
    ("messages", "*", "content", "*"),
    ("messages", "*", "content", "*", "content", "*"),
)
_CACHE_CONTROLS = tuple((*place, "cache_control") for place in _CACHED)
# Where the API takes a field. Anywhere else it is a mistake of the client, which stays in: the
# endpoint then refuses the request again, and nothing is remembered. `*`: each item of a list.
_PLACES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "cache_control": _CACHED,
    "ttl": _CACHE_CONTROLS,
    "scope": _CACHE_CONTROLS,
    "eager_input_streaming": (("tools", "*"),),
    "thinking": ((), ("messages", "*")),
    "context_management": ((),),
    "metadata": ((),),
    "service_tier": ((),),
    "diagnostics": ((),),
    "user_profile_id": ((),),
    "output_config": ((),),
    "effort": (("output_config",),),
    # of OpenAI and endpoints like it
    "reasoning_content": (("messages", "*"),),
    "reasoning": (("messages", "*"),),
    "stream_options": ((),),
    "parallel_tool_calls": ((),),
    "strict": (("tools", "*", "function"),),
}
_THINKING = frozenset({"thinking", "redacted_thinking"})
# Words for a field that isn't known, as opposed to one whose value is wrong.
_UNKNOWN = re.compile(
    r"extra (inputs?|fields?|arguments?|propert)|additional propert|not permitted|not allowed"
    r"|unknown|unrecogni[sz]ed|unexpected|unsupported|expected tags"
    r"|(not|n't) (supported|support|recogni[sz]ed?)\b|no such (field|parameter|property|argument)"
    r"|(invalid|cannot find) (field|parameter|property|key|argument)",
    re.IGNORECASE,
)
# Words for a value that its client has to change. Endpoints have far fewer of these.
_VALUE = re.compile(
    r"\b(must|should|may only|at (least|most)|maximum|minimum|greater|less|more|fewer|longer"
    r"|too (long|many|large|small)|exceeds?|required|range|adaptive)\b",
    re.IGNORECASE,
)
# As the API spells it, or as an endpoint that translates it.
_SPELLINGS = {name: name for name in _PLACES} | {
    re.sub(r"_(\w)", lambda match: match[1].upper(), name): name for name in _PLACES
}
# A name, and whether its path goes on: `cache_control.ttl` names something else.
_NAME = re.compile(rf"(?<![A-Za-z_])({'|'.join(_SPELLINGS)})(?![A-Za-z_])(?=(\.\w)?)")


def refused_in(message: str, body: Mapping[str, Any]) -> str | None:
    """The field of `body` to leave out after an error with this message, if any.

    It is the first one named if the words say that it isn't known, else the only one named, unless
    they say what its value has to be.
    """
    matches = [(_SPELLINGS[match[1]], bool(match[2])) for match in _NAME.finditer(message)]
    paths = {name for name, goes_on in matches if goes_on}
    names = dict.fromkeys(name for name, _ in matches if name not in paths)
    present = [name for name in names if without(body, [name]) != body]
    if _UNKNOWN.search(message) or (len(present) == 1 and not _VALUE.search(message)):
        return next(iter(present), None)
    return None


def is_lesson(message: str) -> bool:
    """Whether the message says of a field itself that the endpoint doesn't know it. Then requests
    of other clients go without it too."""
    return bool(_UNKNOWN.search(message)) and not _VALUE.search(message)


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
