"""What the agent wants the generator to do. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agent.limits import Limits, limits_from
from agent.protocol import Said

DEFAULT_MODEL = "claude-sonnet-5-5"
"""Only if home names none; home's configuration is the place to choose."""
DEFAULT_EXPECTED_TOKENS = 12_000
"""What an app of some hundred lines costs; home knows better what its own have cost."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The first line on the generator's standard input."""

    socket: str
    folder: str  # the work folder; not empty if an app is to be changed
    token: str  # of the session; the gateway exchanges it for the real key
    wish: str
    conversation: tuple[Said, ...]
    model: str
    max_tokens: int  # of one answer
    expected_output_tokens: int
    limits: Limits


def parse_order(line: str) -> Order:
    fields = json.loads(line)
    return Order(
        socket=fields["socket"],
        folder=fields["folder"],
        token=fields["token"],
        wish=fields["wish"],
        conversation=tuple(Said(**said) for said in fields["conversation"]),
        model=fields["model"] or DEFAULT_MODEL,
        max_tokens=fields["max_tokens"],
        expected_output_tokens=fields["expected_output_tokens"] or DEFAULT_EXPECTED_TOKENS,
        limits=limits_from(fields["limits"]),
    )
