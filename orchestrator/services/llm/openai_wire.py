"""What OpenAI-compatible endpoints send, as models. Called by `openai_answer`. Pure.

Endpoints differ from OpenAI's reference: text comes as a list of parts, the arguments of a call as
an object, the number of a call is missing. All that is read. What still doesn't fit isn't an
answer, and that is the endpoint's failure.
"""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from orchestrator.domain import errors

_COUNT_MAX = 1_000_000_000  # tokens of one kind that an endpoint can say it has used


class _Foreign(BaseModel):
    """Unknown fields are ignored; so is the difference between 7 and "7"."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


def _text(value: object) -> object:
    """Text, also if it is a list of parts. Parts without text, such as thinking, are left out."""
    if not isinstance(value, list):
        return "" if value is None else value
    texts = [part.get("text") if isinstance(part, dict) else part for part in value]
    return "".join(text for text in texts if isinstance(text, str))


def _json_text(value: object) -> object:
    """Arguments in JSON, also if they are an object. An empty object says nothing yet."""
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    return "" if value is None else value


def _list(value: object) -> object:
    return [] if value is None else value


def _object(value: object) -> object:
    return {} if value is None else value


def _object_or_none(value: object) -> object:
    """A report of usage is not worth losing an answer for."""
    return value if isinstance(value, dict) else None


def _count(value: object) -> object:
    """A number of tokens within bounds."""
    return min(max(0, value), _COUNT_MAX) if isinstance(value, int) else 0


Text = Annotated[str, BeforeValidator(_text)]
JsonText = Annotated[str, BeforeValidator(_json_text)]
Count = Annotated[int, BeforeValidator(_count)]


class Function(_Foreign):
    """The function of a tool call, or a piece of it."""

    name: Text = ""
    arguments: JsonText = ""


class ToolCall(_Foreign):
    """A tool call, or a piece of it."""

    index: int | None = None
    id: Text = ""
    function: Annotated[Function, BeforeValidator(_object)] = Function()


class Message(_Foreign):
    """A whole message, or a piece of it."""

    content: Text = ""
    refusal: Text = ""
    tool_calls: Annotated[list[ToolCall], BeforeValidator(_list)] = []


class Choice(_Foreign):
    """One of several answers. We ask for one."""

    message: Message | None = None  # of a whole answer
    delta: Message | None = None  # of a stream
    finish_reason: str | None = None


class _Details(_Foreign):
    cached_tokens: Count = 0


class Usage(_Foreign):
    """The tokens of a call."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: Annotated[_Details | None, BeforeValidator(_object_or_none)] = None

    @property
    def cached(self) -> int:
        details = self.prompt_tokens_details
        return min(details.cached_tokens, self.prompt_tokens) if details else 0


class Completion(_Foreign):
    """A whole answer, or a chunk of a stream."""

    id: Text = ""
    model: Text = ""
    choices: Annotated[list[Choice], BeforeValidator(_list)] = []
    usage: Annotated[Usage | None, BeforeValidator(_object_or_none)] = None


def parse(document: object) -> Completion:
    """Raises errors.Temporary if the document is neither an answer nor a part of one."""
    try:
        return Completion.model_validate(document)
    except ValidationError as error:
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "answer"
        raise errors.Temporary(
            f"the endpoint's answer is not a chat completion: {place[:100]} is of the wrong kind"
        ) from error
