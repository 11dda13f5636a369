"""Waiting for a host to become something, with progress on stderr. Used by `spawnctl hosts`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import duration
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands.hosts.paths import one as path_of
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import live

Json = dict[str, Any]

_POLL_S = 0.5
_STALLED_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """What to wait for."""

    name: str  # of the host
    what: str  # for people: "to be up"
    there: Callable[[Json | None], bool]  # of the host as the API shows it; None when it is gone
    say: Callable[[Json], str]  # where it stands
    within_s: float
    goes_on: str  # what goes on when we stop waiting, for people
    stalled: str = ""  # what may be wrong when where it stands hasn't changed for a while


def until(api: Api, awaited: Awaited) -> Json | None:
    """Show how it goes until it is there; the host as it is then. Raises Problem (wait_timeout,
    interrupted): what was asked for goes on without us."""
    try:
        with live.for_stderr() as display:
            return _watch(api, awaited, display)
    except KeyboardInterrupt:
        raise Problem(
            Exit.INTERRUPTED, "interrupted", f"stopped waiting; {awaited.goes_on}", _see(awaited)
        ) from None


def _watch(api: Api, awaited: Awaited, display: live.Display) -> Json | None:
    began = changed = time.monotonic()
    before = ""
    while True:
        found = _look(api, awaited.name)
        if awaited.there(found):
            return found
        said = awaited.say(found) if found is not None else "it is not there yet"
        now = time.monotonic()
        if said != before:
            before, changed = said, now
        stalled = awaited.stalled if now - changed >= _STALLED_S else ""
        display.say(f"{said}; {stalled}" if stalled else said)
        if now - began >= awaited.within_s:
            raise _late(awaited, said)
        time.sleep(_POLL_S)


def _look(api: Api, name: str) -> Json | None:
    try:
        return api.get_patiently(path_of(name))
    except Problem as problem:
        if problem.exit_code is Exit.NOT_FOUND:
            return None
        raise


def _late(awaited: Awaited, said: str) -> Problem:
    return Problem(
        Exit.FAILED,
        "wait_timeout",
        f"waited {duration.say(awaited.within_s)} for {output.plain(awaited.name)}"
        f" {awaited.what}: {said}; {awaited.goes_on}",
        awaited.stalled.capitalize(),
        _see(awaited),
    )


def _see(awaited: Awaited) -> str:
    return f"See it: spawnctl hosts show {output.plain(awaited.name)}"
