"""Sessions as tables and as a story. Used by the sessions commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.domain.sessions.session import ENDED
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.views import changes, spending
from orchestrator.entrypoints.cli.views.progress import say_phases, say_short

Json = dict[str, Any]

_APP_MAX = 80  # characters of a prompt in a list
_CHANGE_MAX = 200  # of what is asked for, where it is no more than a fact among others


def listing(sessions: Sequence[Json], *, wide: bool) -> Table:
    """One line a session; 80 columns hold the narrow form."""
    more = ("HOST", "LINK") if wide else ()
    made = output.table("ID", "STATE", "AGE", "LEFT", "APP", *more, shrink={"APP"})
    for one in sessions:
        cells: list[RenderableType] = [
            output.short(one["session_id"]),
            output.state(one["status"]),
            output.since(one["created_at"]),
            "-" if one["status"] in ENDED else output.until(one["expires_at"]),
            output.one_line(output.cut(app_of(one), _APP_MAX)),
        ]
        if wide:
            cells += [output.plain(one["host"] or "-"), output.plain(one["url"] or "-")]
        made.add_row(*cells)
    return made


def app_of(one: Json) -> str:
    """What it is, for a list: the template's name, or the prompt. One that isn't ready only because
    it is being changed says so: its app runs."""
    change = f"[change {one['change']['number']}] " if one["change"] is not None else ""
    if one["template"] is None:
        return f"{change}{output.plain(one['prompt'])}"
    prompt = f": {output.plain(one['prompt'])}" if one["prompt"] else ""
    return f"{change}[{output.plain(one['template'])}]{prompt}"


def story(one: Json, versions: Sequence[Json], usage: Json) -> Iterator[RenderableType]:
    """Everything about one session."""
    yield output.facts(_facts(one, versions, usage))
    if one["sandbox"] is not None:
        yield Text("\nSandbox", style="bold")
        yield output.facts(_sandbox(one["sandbox"]))
    yield Text("\nHistory", style="bold")
    yield _history(one["history"])
    if one["error"] is not None:
        yield Text(f"\nError {output.plain(one['error']['code'])}", style="bold red")
        yield Text(output.lines(one["error"]["message"]))
    if one["offer"] is not None:
        name, title = output.plain(one["offer"]["template"]), output.plain(one["offer"]["title"])
        yield Text(f"\nNearest template: {title}; spawnctl run --template {name}")


def _facts(one: Json, versions: Sequence[Json], usage: Json) -> Iterator[tuple[str, str | Text]]:
    yield "session", output.plain(one["session_id"])
    yield "state", output.state(one["status"])
    if one["status"] not in ENDED and not one["ready"]:
        yield "progress", f"{one['progress']} %"
    yield "message", output.plain(one["message"])
    if one["queue_position"] is not None:
        yield "queue", f"place {one['queue_position']}"
    if one["url"] is not None:
        yield "link", output.plain(one["url"])
    yield from _changes(one)
    if one["template"] is not None:
        yield "template", output.plain(one["template"])
    if one["prompt"]:
        yield "prompt", output.lines(one["prompt"])
    if one["reused"]:
        yield "reused", "made from an earlier, equal prompt"
    yield "user", f"{output.plain(one['user_id'])} ({output.plain(one['tier'])})"
    yield "attempt", str(one["attempt"])
    yield "version", _version(one, versions)
    if usage["calls"]:
        yield "cost", spending.in_words(usage)
    yield "created", f"{output.clock(one['created_at'])} ({output.since(one['created_at'])} ago)"
    left = output.until(one["expires_at"])
    note = "" if one["status"] in ENDED else f" (in {left})" if left != "over" else " (over)"
    yield "expires", output.clock(one["expires_at"]) + note
    yield "phases", say_phases(one["phases"])


def _changes(one: Json) -> Iterator[tuple[str, str | Text]]:
    if one["change"] is not None:
        said = output.cut(changes.wish(one["change"]), _CHANGE_MAX)
        yield "change", f"{one['change']['number']}: {said}"
    if one["waiting"]:
        what = "more change" if one["change"] is not None else "change"
        yield "waiting", output.count(one["waiting"], what)


def _version(one: Json, versions: Sequence[Json]) -> str:
    """The one that runs, and who made it."""
    for made in versions:
        if made["running"]:
            the = "" if made["message"] is not None else "the "
            said = f"{made['version']} of {len(versions)}, from {the}{changes.made_by(made)}"
            return said + (f" ({output.plain(made['provider'])})" if made["provider"] else "")
    return str(one["version"] or "none yet")


def _sandbox(box: Json) -> Iterator[tuple[str, str | Text]]:
    yield "sandbox", output.plain(box["sandbox_id"])
    yield "state", output.state(box["state"])
    yield "host", f"{output.plain(box['host'])}, port {box['port'] or '-'}"
    yield "routed", "yes" if box["routed"] else "no"
    if box["reason"]:
        yield "reason", output.plain(box["reason"])


def _history(history: Sequence[Json]) -> Table:
    made = Table.grid(padding=(0, 2, 0, 0))
    first = history[0]["at"] if history else ""
    for entered in history:
        after_s = output.seconds_between(first, entered["at"])
        made.add_row(
            output.clock(entered["at"]),
            Text(f"+{say_short(after_s)}", style="bright_black"),
            output.state(entered["state"]),
        )
    return made
