"""What was asked of an app since, and its versions: as people read them. Used by the commands for
sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.entrypoints.cli import output

Json = dict[str, Any]
_Row = tuple[str, Text, Text]  # number, who or how it is, what


def wish(change: Json) -> str:
    """What somebody wants of the app, lines and all."""
    if change["kind"] == "restore":
        return f"restore version {change['restores']}"
    return output.lines(change["text"])


def made_by(version: Json) -> str:
    """What asked for this version."""
    if version["message"] is not None:
        return f"message {version['message']}"
    return "prompt" if version["provider"] else "template"


def conversation(session: Json, versions: Sequence[Json], messages: Sequence[Json]) -> Table:
    """The prompt and all that was said since, in the order of their numbers."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bright_black", no_wrap=True, justify="right")
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for row in _prompt(session, versions):
        made.add_row(*row)
    for message in messages:
        made.add_row()
        for row in _message(message):
            made.add_row(*row)
    return made


def listing(versions: Sequence[Json], *, wide: bool) -> Table:
    """One line a version; 80 columns hold the narrow form."""
    words = ("TITLE", "SUMMARY") if wide else ("WHAT IT IS",)
    kind = ("KIND",) if wide else ()
    columns = ("#", "STATE", "MADE BY", "PROVIDER", *kind, "SIZE", "AGE", *words)
    made = output.table(*columns, shrink=words)
    for one in versions:
        cells: list[RenderableType] = [
            str(one["version"]),
            _standing(one),
            made_by(one),
            output.cut(one["provider"] or "-", 12),
            *([output.plain(one["kind"])] if wide else []),
            output.size(one["size_bytes"]),
            output.since(one["created_at"]),
        ]
        if wide:
            cells += [output.one_line(output.cut(one["title"] or "-", 40))]
            cells += [output.one_line(one["summary"] or "-")]
        else:
            cells += [output.one_line(one["summary"] or one["title"] or "-")]
        made.add_row(*cells)
    return made


def _prompt(session: Json, versions: Sequence[Json]) -> Iterator[_Row]:
    template = f"template {session['template']}" if session["template"] is not None else ""
    asked = ": ".join(output.lines(part) for part in (template, session["prompt"]) if part)
    yield "", _user(), Text(asked)
    first = next((one for one in versions if one["message"] is None and one["healthy"]), None)
    if first is None:
        yield "", output.state(session["status"]), Text(output.plain(session["message"]))
        return
    yield from _said(first["summary"])
    came_to = f"version {first['version']}, {output.since(first['created_at'])} ago"
    yield "", output.state("done"), Text(came_to, "bright_black")


def _message(message: Json) -> Iterator[_Row]:
    yield str(message["number"]), _user(), Text(wish(message))
    yield from _said(message["summary"])
    yield "", output.state(message["state"]), _outcome(message)


def _said(summary: str) -> Iterator[_Row]:
    if summary:
        yield "", Text("Claude", "bold magenta"), Text(output.lines(summary))


def _outcome(message: Json) -> Text:
    """What became of it, and when."""
    if message["ended_at"] is None:
        when = f"asked for {output.since(message['created_at'])} ago"
    else:
        when = f"{output.since(message['ended_at'])} ago"
    if message["error"] is not None:
        code, said = output.plain(message["error"]["code"]), message["error"]["message"]
        return Text.assemble((f"{code}, {when}\n", "bright_black"), output.lines(said))
    came_to = f"version {message['version']}, " if message["version"] is not None else ""
    return Text(f"{came_to}{when}", "bright_black")


def _user() -> Text:
    return Text("user", "bold")


def _standing(version: Json) -> Text:
    if not version["healthy"]:
        return Text("broken", "red")
    return Text("runs", "green") if version["running"] else Text("kept")
