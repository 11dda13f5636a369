"""What providers do, and what comes of it: one row of the table of providers, and its parts."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.compat.answers import TEXT, always
from tests.fakes.llm.odd_provider import Answers, Reply


class Api(enum.StrEnum):
    """What the provider speaks."""

    MESSAGES = "Messages API"
    OPENAI = "OpenAI-compatible"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a client gets, and what is remembered. The default: the provider serves, asked once."""

    status: int = 200  # of the answer, if this provider alone is configured
    kind: str = ""  # the error's type
    code: str = ""  # the error's code, if it is one of ours
    is_next_asked: bool = False  # another provider, if there is one, serves the call
    asks: int = 1  # requests to this provider
    content: Sequence[Any] = (TEXT,)  # texts, (thoughts), and the inputs of tool calls
    stop_reason: str = ""  # as the client reads it; "": it isn't what the row is about
    left_out: Sequence[str] = ()  # fields that this call and later ones go without
    ready_says: str = ""  # what /ready and doctor say of the key
    is_billed: bool = False  # counts as what it may have cost, though no answer came
    is_cut: bool = False  # the answer breaks off
    has_error: bool = False  # the answer ends with the provider's error event
    is_patient: bool = False  # there is time for a retry, and none comes

    def __str__(self) -> str:
        """As the table says it."""
        parts = ["served"]
        if self.has_error:
            parts = ["the client reads the error; the agent asks again"]
        elif self.is_cut:
            parts = ["breaks off; the agent asks again"]
        elif self.is_next_asked:
            error = f"{self.status} `{self.kind}`" + (f" (`{self.code}`)" if self.code else "")
            parts = [f"the next provider serves; without one: {error}"]
        if self.stop_reason:
            parts.append(f"`stop_reason` is `{self.stop_reason}`")
        if self.left_out:
            parts.append(f"asked again at once without {' and '.join(self.left_out)}")
        elif self.asks > 1:
            parts.append("after a retry")
        if self.ready_says:
            parts.append(f"`/ready`, `doctor` and the user read \u201c{self.ready_says}\u201d")
        if self.is_billed:
            parts.append("counts as what it may have cost")
        return "; ".join(parts)


def next_one(status: int, kind: str, code: str = "", **more: Any) -> Outcome:
    return Outcome(status=status, kind=kind, code=code, is_next_asked=True, **more)


def no_credit() -> Outcome:
    return next_one(402, "billing_error", "provider_no_credit", ready_says="has no credit")


def refused_key() -> Outcome:
    return next_one(401, "authentication_error", "provider_auth", ready_says="was refused")


SERVED = Outcome()
REFUSED = next_one(400, "invalid_request_error")
UNREACHABLE = next_one(502, "api_error", "provider_unavailable")
LOST = next_one(502, "api_error", "provider_unavailable", is_billed=True)
TWO_CALLS = Outcome(content=({"n": 0}, {"n": 1}))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row."""

    behaviour: str
    answers: Answers
    outcome: Outcome = SERVED
    api: Api = Api.MESSAGES
    asked: Mapping[str, Any] = field(default_factory=dict)  # fields of the request
    model: str = "gpt-x"  # of an OpenAI-compatible endpoint
    is_streamed: bool = True
    is_listening: bool = True


def row(behaviour: str, answer: Reply | Answers, outcome: Outcome = SERVED, **more: Any) -> Case:
    answers = always(answer) if isinstance(answer, Reply) else answer
    return Case(behaviour=behaviour, answers=answers, outcome=outcome, **more)


def openai(behaviour: str, answer: Reply | Answers, outcome: Outcome = SERVED, **more: Any) -> Case:
    return row(behaviour, answer, outcome, api=Api.OPENAI, **more)
