"""`spawnctl sessions logs`: what an app prints, now and as it goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from orchestrator.domain.sessions.session import ENDED
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.arguments import SessionArgument, find_session
from orchestrator.entrypoints.cli.client import PAGE_MAX, Api
from orchestrator.entrypoints.cli.output import AsJson

Line = dict[str, Any]

_WINDOW = PAGE_MAX  # lines to get each time: more than an app prints during one pause
_PAUSE_S = 1.0


def register(group: typer.Typer) -> None:
    """Add the command to the group `sessions`."""
    group.command()(logs)


def logs(
    session: SessionArgument,
    limit: Annotated[
        int, typer.Option(min=1, max=PAGE_MAX, help="How many of the last lines.")
    ] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the session ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what an app wrote to its output."""
    with Api.from_settings(local.settings()) as api:
        session_id = find_session(api, session)
        if follow:
            _follow(api, session_id, limit, as_json=as_json)
            return
        response = api.get(f"/api/admin/sessions/{session_id}/logs", limit=limit)
    if as_json:
        output.print_json(response)
        return
    _print_lines(response["lines"], as_json=False)
    if not response["lines"]:
        output.stderr().print("It has printed nothing.")


def _follow(api: Api, session_id: str, limit: int, *, as_json: bool) -> None:
    """Print the last lines and then each new line, until the session has ended. Goes on while the
    API restarts."""
    path = f"/api/admin/sessions/{session_id}"
    previous: Sequence[Line] | None = None
    while True:
        # In this order: if the session has ended, the lines below include its last ones.
        has_ended = api.get_with_retry(path)["status"] in ENDED
        lines = api.get_with_retry(f"{path}/logs", limit=_WINDOW)["lines"]
        _print_lines(
            lines[-limit:] if previous is None else new_lines(previous, lines), as_json=as_json
        )
        sys.stdout.flush()
        if has_ended:
            return
        previous = lines
        time.sleep(_PAUSE_S)


def new_lines(previous: Sequence[Line], lines: Sequence[Line]) -> Sequence[Line]:
    """The lines that come after `previous`.

    Both are the end of one growing list, cut to the same length. So the longest end of `previous`
    that `lines` begins with was printed before.
    """
    for overlap in range(min(len(previous), len(lines)), 0, -1):
        if previous[-overlap:] == lines[:overlap]:
            return lines[overlap:]
    return lines


def _print_lines(lines: Sequence[Line], *, as_json: bool) -> None:
    """Print to stdout; as JSON one object a line."""
    console = output.stdout()
    for line in lines:
        if as_json:
            print(json.dumps(line))
            continue
        time_text = Text(output.local_time(line["at"]), style="bright_black")
        console.print(
            Text.assemble(time_text, " ", output.plain_lines(line["text"])), soft_wrap=True
        )
