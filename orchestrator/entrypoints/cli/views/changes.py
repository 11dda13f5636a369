"""The changes of an app, and its versions, as people read them. Used by `spawnctl sessions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.entrypoints.cli import output

Json = dict[str, Any]
_Row = tuple[str, Text, Text]  # message number, speaker or state, text


def request_text(change: Json) -> str:
    """What the user asks for, with its line breaks."""
    if change["kind"] == "restore":
        return f"restore version {change['restores']}"
    return output.plain_lines(change["text"])


def origin(version: Json) -> str:
    """What led to this version: a message, the prompt or a template."""
    if version["message"] is not None:
        return f"message {version['message']}"
    return "prompt" if version["provider"] else "template"


def conversation(session: Json, versions: Sequence[Json], messages: Sequence[Json]) -> Table:
    """The prompt and every message after it, by number, each with its answer and its outcome."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bright_black", no_wrap=True, justify="right")
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for row in _prompt_rows(session, versions):
        grid.add_row(*row)
    for message in messages:
        grid.add_row()
        for row in _message_rows(message):
            grid.add_row(*row)
    return grid


def versions_table(versions: Sequence[Json], *, wide: bool) -> Table:
    """One line a version. The narrow form fits 80 columns."""
    descriptions = ("TITLE", "SUMMARY") if wide else ("WHAT IT IS",)
    kind = ("KIND",) if wide else ()
    columns = ("#", "STATE", "MADE BY", "PROVIDER", *kind, "SIZE", "AGE", *descriptions)
    table = output.table(*columns, shrink=descriptions)
    for version in versions:
        cells: list[RenderableType] = [
            str(version["version"]),
            _version_state(version),
            origin(version),
            output.truncate(version["provider"] or "-", 12),
            *([output.plain(version["kind"])] if wide else []),
            output.size(version["size_bytes"]),
            output.age(version["created_at"]),
        ]
        if wide:
            cells += [output.one_line(output.truncate(version["title"] or "-", 40))]
            cells += [output.one_line(version["summary"] or "-")]
        else:
            cells += [output.one_line(version["summary"] or version["title"] or "-")]
        table.add_row(*cells)
    return table


def _prompt_rows(session: Json, versions: Sequence[Json]) -> Iterator[_Row]:
    template = f"template {session['template']}" if session["template"] is not None else ""
    request = ": ".join(output.plain_lines(part) for part in (template, session["prompt"]) if part)
    yield "", _user(), Text(request)
    first = next(
        (version for version in versions if version["message"] is None and version["healthy"]),
        None,
    )
    if first is None:
        yield "", output.state_text(session["status"]), Text(output.plain(session["message"]))
        return
    yield from _summary_rows(first["summary"])
    outcome = f"version {first['version']}, {output.age(first['created_at'])} ago"
    yield "", output.state_text("done"), Text(outcome, "bright_black")


def _message_rows(message: Json) -> Iterator[_Row]:
    yield str(message["number"]), _user(), Text(request_text(message))
    yield from _summary_rows(message["summary"])
    yield "", output.state_text(message["state"]), _outcome(message)


def _summary_rows(summary: str) -> Iterator[_Row]:
    if summary:
        yield "", Text("Claude", "bold magenta"), Text(output.plain_lines(summary))


def _outcome(message: Json) -> Text:
    """The version or the error that a message led to, and how long ago."""
    if message["ended_at"] is None:
        when = f"asked for {output.age(message['created_at'])} ago"
    else:
        when = f"{output.age(message['ended_at'])} ago"
    if message["error"] is not None:
        code = output.plain(message["error"]["code"])
        error_text = output.plain_lines(message["error"]["message"])
        return Text.assemble((f"{code}, {when}\n", "bright_black"), error_text)
    version = f"version {message['version']}, " if message["version"] is not None else ""
    return Text(f"{version}{when}", "bright_black")


def _user() -> Text:
    return Text("user", "bold")


def _version_state(version: Json) -> Text:
    if not version["healthy"]:
        return Text("broken", "red")
    return Text("runs", "green") if version["running"] else Text("kept")
