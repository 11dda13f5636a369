"""Warm starts of other users at a steady pace: from POST to READY, as they see it."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.bounds.visitors import Visitor
from bench.measure import percentile
from tests.e2e.installation import Installation

_TEMPLATE = "todo"  # static: measures our own time, not the start of a web framework
_GIVEN_UP_S = 90.0


@dataclass(frozen=True, kw_only=True)
class Start:
    """One app that somebody asked for."""

    ready_s: float  # until it was READY; _GIVEN_UP_S if it never was
    refusal: str = ""  # the code with which the request was refused
    loss: str = ""  # why an accepted session did not become READY


@dataclass(frozen=True, kw_only=True)
class Starts:
    """The starts of one phase."""

    all: Sequence[Start]

    @property
    def p50_s(self) -> float:
        return percentile([start.ready_s for start in self.all], 0.5)

    @property
    def p95_s(self) -> float:
        return percentile([start.ready_s for start in self.all], 0.95)

    @property
    def losses(self) -> list[str]:
        return [start.loss for start in self.all if start.loss]

    @property
    def refusals(self) -> Counter[str]:
        return Counter(start.refusal for start in self.all if start.refusal)


def steady(spawn: Installation, count: int, seconds: float) -> Starts:
    """`count` starts, evenly over so many seconds. Returns when all have ended."""
    return ask_steadily(spawn, count, seconds)()


def ask_steadily(spawn: Installation, count: int, seconds: float) -> Callable[[], Starts]:
    """Ask for `count` apps, evenly over so many seconds, and return then.

    A start that is slow doesn't delay the next one: else few would fall into a bad time. What is
    returned waits for those that have not ended.
    """
    interval_s = seconds / count
    begun_at = time.monotonic()
    pause = threading.Event()
    visitors = ThreadPoolExecutor(count)
    futures = []
    for number in range(count):
        pause.wait(begun_at + (number + 0.5) * interval_s - time.monotonic())
        futures.append(visitors.submit(_start, spawn))
    pause.wait(begun_at + seconds - time.monotonic())
    visitors.shutdown(wait=False)
    return lambda: Starts(all=[future.result() for future in futures])


def _start(spawn: Installation) -> Start:
    visitor = Visitor(spawn)
    started_at = time.perf_counter()
    try:
        response = visitor.call("POST", "/api/sessions", {"template": _TEMPLATE})
    except (OSError, http.client.HTTPException) as error:
        return Start(ready_s=_GIVEN_UP_S, refusal=type(error).__name__)
    if response.status != 202:
        return Start(ready_s=_GIVEN_UP_S, refusal=_code_of(response.status, response.text))
    session_id = response.json["session_id"]
    status = visitor.await_end_of_start(session_id, _GIVEN_UP_S)
    duration_s = time.perf_counter() - started_at
    visitor.end(session_id)
    if status is None:
        return Start(ready_s=_GIVEN_UP_S, loss=f"not ready within {_GIVEN_UP_S:.0f} s")
    if not status["ready"]:
        return Start(ready_s=_GIVEN_UP_S, loss=f"{status['status']}: {status['error']}")
    return Start(ready_s=duration_s)


def _code_of(status: int, text: str) -> str:
    """The code of a problem, or the bare status if somebody else has answered."""
    code = text.partition('"code":"')[2].partition('"')[0]
    return f"{status} {code}".strip()
