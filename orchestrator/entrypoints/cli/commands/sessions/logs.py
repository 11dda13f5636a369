"""What apps print, shown and followed. Used by `spawnctl sessions logs`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from orchestrator.domain.sessions.session import ENDED
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import Api

Line = dict[str, Any]

_WINDOW = 1000  # lines asked for each time: more than an app prints in one pause
_PAUSE_S = 1.0


def follow(api: Api, session_id: str, limit: int, *, as_json: bool) -> None:
    """Print the last lines and then each new one, until the session has ended. Bears an API that
    restarts."""
    path = f"/api/admin/sessions/{session_id}"
    known: Sequence[Line] | None = None
    while True:
        # In this order: what it printed before it ended is there when it is seen to have ended.
        ended = api.get_patiently(path)["status"] in ENDED
        now = api.get_patiently(f"{path}/logs", limit=_WINDOW)["lines"]
        print_lines(now[-limit:] if known is None else news(known, now), as_json=as_json)
        sys.stdout.flush()
        if ended:
            return
        known = now
        time.sleep(_PAUSE_S)


def news(before: Sequence[Line], now: Sequence[Line]) -> Sequence[Line]:
    """What `now` has beyond `before`. Both are the end of one growing list, cut to one window: so
    the longest end of `before` with which `now` begins is what was there already."""
    for kept in range(min(len(before), len(now)), 0, -1):
        if before[-kept:] == now[:kept]:
            return now[kept:]
    return now


def print_lines(lines: Sequence[Line], *, as_json: bool) -> None:
    """To stdout; as JSON one object a line."""
    console = output.stdout()
    for line in lines:
        if as_json:
            print(json.dumps(line))
            continue
        at = Text(output.clock(line["at"]), style="bright_black")
        console.print(Text.assemble(at, " ", output.lines(line["text"])), soft_wrap=True)
