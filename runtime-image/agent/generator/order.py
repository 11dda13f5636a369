"""The generator's order: what the agent wants it to do. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from orchestrator.contract.wire import Limits, Message, parse_limits, parse_message

DEFAULT_MODEL = "claude-sonnet-5-5"
"""Used if home names none. Choose the model in home's configuration."""
DEFAULT_EXPECTED_TOKENS = 12_000
"""Of an app of some hundred lines. Home knows better what its own apps have taken."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The first line on the generator's standard input."""

    socket: str
    folder: str  # the work folder; not empty if an app is to be changed
    token: str  # of the session; the gateway exchanges it for the real key
    request: str  # what the user wants
    conversation: tuple[Message, ...]  # before the request, oldest first
    model: str
    max_tokens: int  # of one answer
    expected_output_tokens: int
    limits: Limits
    upload_max_bytes: int  # of a request to the app


def parse_order(line: str) -> Order:
    """Read the line. The agent wrote it, so it is taken as correct."""
    fields = json.loads(line)
    return Order(
        socket=fields["socket"],
        folder=fields["folder"],
        token=fields["token"],
        request=fields["request"],
        conversation=tuple(parse_message(message) for message in fields["conversation"]),
        model=fields["model"] or DEFAULT_MODEL,
        max_tokens=fields["max_tokens"],
        expected_output_tokens=fields["expected_output_tokens"] or DEFAULT_EXPECTED_TOKENS,
        limits=parse_limits(fields["limits"]),
        upload_max_bytes=fields["upload_max_bytes"],
    )
