"""What OpenAI-compatible endpoints send, as models. Called by `openai_answer`. Pure.

Endpoints differ from OpenAI's reference: text comes as a list of parts, the arguments of a call as
an object, the number of a call is missing, the usage lies elsewhere. All that is read. What still
doesn't fit isn't an answer, and that is the endpoint's failure.
"""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from orchestrator.domain import errors
from orchestrator.domain.llm import thoughts
from orchestrator.services.llm import token_counts

_WORD_MAX_CHARS = 100


class _Foreign(BaseModel):
    """Unknown fields are ignored; so is the difference between 7 and "7"."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


def _text(value: object) -> object:
    """Text, also if it is a list of parts. Parts without text, such as thinking, are left out."""
    if not isinstance(value, list):
        return "" if value is None else value
    texts = [part.get("text") if isinstance(part, dict) else part for part in value]
    return "".join(text for text in texts if isinstance(text, str))


def _thought(value: object) -> object:
    """A text that isn't worth losing an answer for."""
    text = _text(value)
    return text if isinstance(text, str) else ""


def _json_text(value: object) -> object:
    """Arguments in JSON, also if they are an object. An empty one says nothing yet; some write it
    as a list."""
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    return "" if value is None or value == [] else value


def _list(value: object) -> object:
    """A list without gaps, also if its only item comes alone."""
    if isinstance(value, list):
        return [item for item in value if item is not None]
    return [] if value is None else [value] if isinstance(value, dict) else value


def _object(value: object) -> object:
    return {} if value is None else value


def _object_or_none(value: object) -> object:
    """What isn't worth losing an answer for, such as a report of usage."""
    return value if isinstance(value, dict) else None


def _word(value: object) -> object:
    """A reason to stop as a word of small letters; "" if it isn't known yet."""
    if not value:
        return ""
    word = value.strip().lower()[:_WORD_MAX_CHARS] if isinstance(value, str) else "unknown"
    return "" if word in ("null", "none") else word


Text = Annotated[str, BeforeValidator(_text)]
Thought = Annotated[str, BeforeValidator(_thought)]
JsonText = Annotated[str, BeforeValidator(_json_text)]
Word = Annotated[str, BeforeValidator(_word)]
# Of tokens, or of a call; what is no number counts as missing.
Count = Annotated[int | None, BeforeValidator(token_counts.token_count)]


class Function(_Foreign):
    """The function of a tool call, or a piece of it."""

    name: Text = ""
    arguments: JsonText = ""


class ToolCall(_Foreign):
    """A tool call, or a piece of it."""

    index: Count = None
    id: Text = ""
    function: Annotated[Function, BeforeValidator(_object)] = Function()


class Message(_Foreign):
    """A whole message, or a piece of it."""

    content: Text = ""
    refusal: Text = ""
    tool_calls: Annotated[list[ToolCall], BeforeValidator(_list)] = []
    # What `tool_calls` was called when there could be one alone.
    function_call: Annotated[Function | None, BeforeValidator(_object_or_none)] = None
    # The names of thoughts.FIELDS.
    reasoning_content: Thought = ""
    reasoning: Thought = ""
    thinking: Thought = ""

    @property
    def thought(self) -> tuple[str, str] | None:
        """The field with the model's thoughts, and these; the first one if several have them."""
        for field in thoughts.FIELDS:
            if text := getattr(self, field):
                return field, text
        return None

    @property
    def calls(self) -> list[ToolCall]:
        if self.tool_calls or self.function_call is None:
            return self.tool_calls
        return [ToolCall(function=self.function_call)]

    @property
    def is_empty(self) -> bool:
        return not (self.content or self.refusal or self.calls or self.thought)


class _Details(_Foreign):
    cached_tokens: Count = None


class Usage(_Foreign):
    """The tokens of a call. None: the endpoint doesn't say."""

    prompt_tokens: Count = Field(
        default=None, validation_alias=AliasChoices("prompt_tokens", "input_tokens")
    )
    completion_tokens: Count = Field(
        default=None, validation_alias=AliasChoices("completion_tokens", "output_tokens")
    )
    total_tokens: Count = None
    prompt_tokens_details: Annotated[_Details | None, BeforeValidator(_object_or_none)] = None
    # The same elsewhere: Moonshot's and DeepSeek's.
    cached_tokens: Count = None
    prompt_cache_hit_tokens: Count = None

    @property
    def says_something(self) -> bool:
        return bool(self.prompt_tokens or self.completion_tokens or self.total_tokens)

    def cached_of(self, prompt_tokens: int) -> int:
        """So many of these tokens came from the endpoint's cache."""
        details = self.prompt_tokens_details
        counts = (
            details.cached_tokens if details else None,
            self.cached_tokens,
            self.prompt_cache_hit_tokens,
        )
        return min(max(count or 0 for count in counts), prompt_tokens)


ReportedUsage = Annotated[Usage | None, BeforeValidator(_object_or_none)]


class Choice(_Foreign):
    """One of several answers. We ask for one."""

    index: Count = None
    message: Message | None = None  # of a whole answer
    delta: Message | None = None  # of a stream
    finish_reason: Word = ""
    usage: ReportedUsage = None  # Moonshot reports it here


class _Groq(_Foreign):
    usage: ReportedUsage = None


class Completion(_Foreign):
    """A whole answer, or a chunk of a stream."""

    model: Text = ""
    choices: Annotated[list[Choice], BeforeValidator(_list)] = []
    usage: ReportedUsage = None
    x_groq: Annotated[_Groq | None, BeforeValidator(_object_or_none)] = None

    def choice(self, index: int | None) -> Choice | None:
        """The choice with this number, or the first one without any."""
        return next((choice for choice in self.choices if choice.index in (None, index)), None)

    @property
    def first_index(self) -> int | None:
        """The least number of a choice; None if none has one."""
        numbers = (choice.index for choice in self.choices if choice.index is not None)
        return min(numbers, default=None)

    @property
    def reported(self) -> Usage | None:
        """The usage, wherever it is; None if there is none that says something."""
        places = (
            self.usage,
            *(choice.usage for choice in self.choices[:1]),
            self.x_groq.usage if self.x_groq else None,
        )
        return next((usage for usage in places if usage and usage.says_something), None)


def parse(document: object) -> Completion:
    """Raises errors.Temporary if the document is neither an answer nor a part of one."""
    try:
        return Completion.model_validate(document)
    except ValidationError as error:
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "answer"
        raise errors.Temporary(
            f"the endpoint's answer is not a chat completion: {place[:100]} is of the wrong kind"
        ) from error
