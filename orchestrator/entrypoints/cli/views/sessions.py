"""Sessions as tables and facts. Used by `spawnctl sessions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.domain.sessions.session import ENDED
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.views import changes, usage
from orchestrator.entrypoints.cli.views.progress import phases_text, seconds_text

Json = dict[str, Any]

_APP_MAX = 80  # characters of a prompt in a list
_CHANGE_MAX = 200  # characters of a change among the facts of a session


def sessions_table(sessions: Sequence[Json], *, wide: bool) -> Table:
    """One line a session. The narrow form fits 80 columns."""
    more = ("HOST", "LINK") if wide else ()
    table = output.table("ID", "STATE", "AGE", "LEFT", "APP", *more, shrink={"APP"})
    for session in sessions:
        has_ended = session["status"] in ENDED
        cells: list[RenderableType] = [
            output.short_id(session["session_id"]),
            output.state_text(session["status"]),
            output.age(session["created_at"]),
            "-" if has_ended else output.time_left(session["expires_at"]),
            output.one_line(output.truncate(app_text(session), _APP_MAX)),
        ]
        if wide:
            cells += [output.plain(session["host"] or "-"), output.plain(session["url"] or "-")]
        table.add_row(*cells)
    return table


def app_text(session: Json) -> str:
    """The app in a list: the template's name or the prompt, and the change in progress.

    A session with such a change is not ready, but its app runs.
    """
    change = f"[change {session['change']['number']}] " if session["change"] is not None else ""
    if session["template"] is None:
        return f"{change}{output.plain(session['prompt'])}"
    prompt = f": {output.plain(session['prompt'])}" if session["prompt"] else ""
    return f"{change}[{output.plain(session['template'])}]{prompt}"


def details(
    session: Json, versions: Sequence[Json], session_usage: Json
) -> Iterator[RenderableType]:
    """Everything about one session."""
    yield output.facts(_facts(session, versions, session_usage))
    if session["sandbox"] is not None:
        yield Text("\nSandbox", style="bold")
        yield output.facts(_sandbox(session["sandbox"]))
    yield Text("\nHistory", style="bold")
    yield _history(session["history"])
    error, offer = session["error"], session["offer"]
    if error is not None:
        yield Text(f"\nError {output.plain(error['code'])}", style="bold red")
        yield Text(output.plain_lines(error["message"]))
    if offer is not None:
        name, title = output.plain(offer["template"]), output.plain(offer["title"])
        yield Text(f"\nNearest template: {title}; spawnctl run --template {name}")


def _facts(
    session: Json, versions: Sequence[Json], session_usage: Json
) -> Iterator[tuple[str, str | Text]]:
    has_ended = session["status"] in ENDED
    yield "session", output.plain(session["session_id"])
    yield "state", output.state_text(session["status"])
    if not has_ended and not session["ready"]:
        yield "progress", f"{session['progress']} %"
    yield "message", output.plain(session["message"])
    if session["queue_position"] is not None:
        yield "queue", f"place {session['queue_position']}"
    if session["url"] is not None:
        yield "link", output.plain(session["url"])
    yield from _changes(session)
    if session["template"] is not None:
        yield "template", output.plain(session["template"])
    if session["prompt"]:
        yield "prompt", output.plain_lines(session["prompt"])
    if session["reused"]:
        yield "reused", "made from an earlier, equal prompt"
    yield "user", f"{output.plain(session['user_id'])} ({output.plain(session['tier'])})"
    yield "attempt", str(session["attempt"])
    yield "version", _version(session, versions)
    if session_usage["calls"]:
        yield "cost", usage.summary(session_usage)
    created_at, expires_at = session["created_at"], session["expires_at"]
    yield "created", f"{output.local_time(created_at)} ({output.age(created_at)} ago)"
    left = output.time_left(expires_at)
    note = "" if has_ended else f" (in {left})" if left != "over" else " (over)"
    yield "expires", output.local_time(expires_at) + note
    yield "phases", phases_text(session["phases"])


def _changes(session: Json) -> Iterator[tuple[str, str | Text]]:
    change, waiting = session["change"], session["waiting"]
    if change is not None:
        text = output.truncate(changes.request_text(change), _CHANGE_MAX)
        yield "change", f"{change['number']}: {text}"
    if waiting:
        yield "waiting", output.count(waiting, "more change" if change is not None else "change")


def _version(session: Json, versions: Sequence[Json]) -> str:
    """The version that runs, and what led to it."""
    for version in versions:
        if version["running"]:
            article = "" if version["message"] is not None else "the "
            source = f"{article}{changes.origin(version)}"
            text = f"{version['version']} of {len(versions)}, from {source}"
            provider = output.plain(version["provider"])
            return f"{text} ({provider})" if version["provider"] else text
    return str(session["version"] or "none yet")


def _sandbox(sandbox: Json) -> Iterator[tuple[str, str | Text]]:
    yield "sandbox", output.plain(sandbox["sandbox_id"])
    yield "state", output.state_text(sandbox["state"])
    yield "host", f"{output.plain(sandbox['host'])}, port {sandbox['port'] or '-'}"
    yield "routed", "yes" if sandbox["routed"] else "no"
    if sandbox["reason"]:
        yield "reason", output.plain(sandbox["reason"])


def _history(history: Sequence[Json]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    start = history[0]["at"] if history else ""
    for entry in history:
        after_s = output.seconds_between(start, entry["at"])
        grid.add_row(
            output.local_time(entry["at"]),
            Text(f"+{seconds_text(after_s)}", style="bright_black"),
            output.state_text(entry["state"]),
        )
    return grid
