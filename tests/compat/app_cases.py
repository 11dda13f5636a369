"""What a row of the table of apps is made of. The rows are collected in `apps`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.contract.health import PATIENCE_S
from tests.compat.app_answers import PAGE
from tests.integration.proxy.world import Handler

WELL = "well"
KIB = 1024
LIMIT_BYTES = 12 * 1024 * KIB
"""Of uploads, here. An installation has 50 MiB unless it says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The visitor's request."""

    method: str = "GET"
    target: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    body_bytes: int = 0
    is_chunked: bool = False
    trailer: str = ""  # whole lines
    times: int = 1  # over one connection, sent at once


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the visitor gets."""

    status: int = 200
    body: bytes | None = PAGE  # gzip taken off; None: a page of ours
    headers: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)  # None: absent
    contains: str = ""  # in a page of ours
    interim: Sequence[int] = ()
    is_cut: bool = False  # ends before its end, and the client is told so
    says: str = "as sent"  # for the document

    def __str__(self) -> str:
        return f"{self.status}, {self.says}" if self.says else str(self.status)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row."""

    topic: str
    behaviour: str
    app: Handler
    check: str = WELL  # or a part of the sentence of both checks
    asked: Asked = field(default_factory=Asked)
    outcome: Outcome = field(default_factory=Outcome)
    seen: Mapping[str, str | None] = field(default_factory=dict)  # headers that the app gets
    address: str = "127.0.0.1"  # where it listens
    look_s: float = PATIENCE_S  # how long the checks wait
    is_beside_slow: bool = False  # another visitor has sent a part of a small body, and pauses


Row = tuple[str, Handler] | tuple[str, Handler, dict[str, Any]]

SENT = Outcome()
OURS = Outcome(status=502, body=None, says="our page says why")
CUT = Outcome(body=None, is_cut=True, says="breaks off, and the browser knows")


def cases(topic: str, *rows: Row) -> tuple[Case, ...]:
    """The rows of a topic: behaviour, app, and what differs from a plain page."""
    return tuple(
        Case(topic=topic, behaviour=row[0], app=row[1], **(row[2] if len(row) == 3 else {}))
        for row in rows
    )


def as_sent(status: int, says: str = "as sent", body: bytes = PAGE, **more: Any) -> Outcome:
    return Outcome(status=status, says=says, body=body, **more)


def with_headers(says: str, status: int = 200, body: bytes = PAGE, **headers: Any) -> Outcome:
    """With these headers; an underscore in a name stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Outcome(status=status, body=body, headers=named, says=says)
