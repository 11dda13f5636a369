"""How a session goes on, as it comes. Used by whatever waits for an app or for a change of one."""

from __future__ import annotations

import time
from collections.abc import Iterator

from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

_LONG_POLL_S = 25  # below the 30-60 s after which proxies on the way give up
_PACE_S = 0.2  # between polls, when the API answers them at once (it is about to stop)


def statuses(api: Api, first: Json, etag: str | None, timeout_s: float) -> Iterator[Json]:
    """`first`, and then each status that differs from the one before, until the time is up.
    `etag`: of `first`; None asks for it again. Raises Problem."""
    ends = time.monotonic() + timeout_s
    yield first
    while (left_s := ends - time.monotonic()) > 0:
        asked_at = time.monotonic()
        polled = api.poll(first["session_id"], etag, max(1, min(_LONG_POLL_S, int(left_s))))
        if polled.status is not None:
            etag = polled.etag
            yield polled.status
        else:
            time.sleep(max(0.0, _PACE_S - (time.monotonic() - asked_at)))


def late(said: str, *advice: str) -> Problem:
    """The time that somebody would wait is up; what they wait for goes on."""
    return Problem(Exit.FAILED, "wait_timeout", said, *advice)


def interrupted(what: str, *advice: str) -> Problem:
    """Ctrl-C. `what` goes on without us."""
    return Problem(
        Exit.INTERRUPTED, "interrupted", f"stopped waiting; {output.plain(what)} goes on", *advice
    )
