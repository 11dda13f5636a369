"""Waiting until a host is up, empty or gone, with progress on stderr. Used by `spawnctl hosts`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.domain import duration
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import Api, Json, host_path
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views.status_line import StatusLine, open_status_line

_POLL_S = 0.5
_STALLED_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What to wait for."""

    name: str  # of the host
    text: str  # for people: "to be up"
    is_reached: Callable[[Json | None], bool]  # gets the host from the API; None if it is gone
    describe: Callable[[Json], str]  # the host's progress towards the goal, for people
    timeout_s: float
    goes_on: str  # what goes on when we stop waiting, for people
    stall_hint: str = ""  # what may be wrong if the progress hasn't changed for _STALLED_S


def wait_for(api: Api, goal: Goal) -> Json | None:
    """Show the progress until the goal is reached, and return the host as it is then.

    Raises Problem (wait_timeout, interrupted): what was asked for goes on.
    """
    try:
        with open_status_line() as status_line:
            return _watch(api, goal, status_line)
    except KeyboardInterrupt:
        raise Problem(
            Exit.INTERRUPTED, "interrupted", f"stopped waiting; {goal.goes_on}", _advice(goal)
        ) from None


def _watch(api: Api, goal: Goal, status_line: StatusLine) -> Json | None:
    started_at = changed_at = time.monotonic()
    previous = ""
    while True:
        host = _get_host(api, goal.name)
        if goal.is_reached(host):
            return host
        progress = goal.describe(host) if host is not None else "it is not there yet"
        now = time.monotonic()
        if progress != previous:
            previous, changed_at = progress, now
        hint = goal.stall_hint if now - changed_at >= _STALLED_S else ""
        status_line.update(f"{progress}; {hint}" if hint else progress)
        if now - started_at >= goal.timeout_s:
            raise _timed_out(goal, progress)
        time.sleep(_POLL_S)


def _get_host(api: Api, name: str) -> Json | None:
    try:
        return api.get_with_retry(host_path(name))
    except Problem as problem:
        if problem.exit_code is Exit.NOT_FOUND:
            return None
        raise


def _timed_out(goal: Goal, progress: str) -> Problem:
    return Problem(
        Exit.FAILED,
        "wait_timeout",
        f"waited {duration.to_text(goal.timeout_s)} for {output.plain(goal.name)}"
        f" {goal.text}: {progress}; {goal.goes_on}",
        goal.stall_hint.capitalize(),
        _advice(goal),
    )


def _advice(goal: Goal) -> str:
    return f"See it: spawnctl hosts show {output.plain(goal.name)}"
