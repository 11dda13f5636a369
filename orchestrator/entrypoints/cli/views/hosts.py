"""Hosts as tables and facts. Used by `spawnctl hosts`, `pool` and `status`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.entrypoints.cli import output

Json = dict[str, Any]


def listing(found: Sequence[Json], *, wide: bool) -> Table:
    """One line a host; 80 columns hold the narrow form."""
    more = ("CHANNELS", "ADDRESS", "PUBLISHES ON", "LABELS") if wide else ()
    columns = ("HOST", "STATE", "REGION", "USED", "WARM", "FREE", "LINK", *more, "NOTE")
    made = output.table(*columns, wrap={"NOTE", "LABELS"})
    for host in found:
        cells: list[str | Text] = [
            output.cut(host["name"], 20),
            output.state(host["state"]),
            output.cut(host["region"] or "-", 12),
            f"{host['used']}/{host['slots']}",
            str(host["warm"]),
            _free(host),
            _link(host),
        ]
        if wide:
            cells += [
                str(host["link"]["channels"]) if host["link"] else "-",
                output.plain(host["address"]),
                output.plain(host["publish_address"]),
                _labels(host) or "-",
            ]
        made.add_row(*cells, note(host) or "-")
    return made


def note(host: Json) -> str:
    """The operator's marks, what it is short of, and why it isn't up: in one line."""
    marks = []
    if host["cordoned"]:
        marks.append("cordoned")
    if host["draining"]:
        marks.append(_DRAINS.get(host["drain"], "draining"))
    return "; ".join(output.plain(one) for one in (*marks, host["shortage"], host["reason"]) if one)


def story(host: Json) -> Iterator[RenderableType]:
    """One host: everything about it, then its sandboxes."""
    yield output.facts(_facts(host))
    if host["sandboxes"]:
        yield Text()
        yield _sandboxes(host["sandboxes"])


_DRAINS = {"wait": "draining, its sessions may end", "move": "draining", "leave": "leaving"}


def _facts(host: Json) -> Iterator[tuple[str, str | Text]]:
    yield "host", Text(output.plain(host["name"]), "bold")
    state = Text.assemble(output.state(host["state"]), f" for {output.since(host['since'])}")
    yield "state", state
    if said := note(host):
        yield "note", Text(said, "yellow")
    yield "address", output.plain(host["address"])
    yield "publishes on", output.plain(host["publish_address"])
    if host["region"]:
        yield "region", output.plain(host["region"])
    if host["labels"]:
        yield "labels", _labels(host)
    yield (
        "slots",
        f"{host['used']} of {host['slots']} used ({host['warm']} warm, {host['starting']}"
        f" starting); {host['starts_at_once']} starts at once",
    )
    if host["link"] is not None:
        link = host["link"]
        yield (
            "link",
            Text.assemble(
                _link(host),
                f", {output.count(link['channels'], 'channel')} open,"
                f" {output.count(link['reconnects'], 'reconnect')} since the daemon started",
            ),
        )
    yield "image", output.plain(host["image"]) or Text("none yet", "yellow")
    if host["host_key"]:
        yield "host key", output.plain(host["host_key"])
    yield "generation", str(host["generation"])


def _sandboxes(boxes: Sequence[Json]) -> Table:
    made = output.table("SANDBOX", "STATE", "SESSION", "PORT", "AGE", "REASON", wrap={"REASON"})
    for box in boxes:
        made.add_row(
            output.short(box["sandbox_id"]),
            output.state(box["state"]),
            output.short(box["session_id"]),
            str(box["port"] or "-"),
            output.since(box["created_at"]),
            output.plain(box["reason"]) or "-",
        )
    return made


def _free(host: Json) -> Text:
    """Slots that something new could take; none on a host that takes nothing."""
    free = max(0, host["slots"] - host["used"])
    taking = host["state"] == "up" and not (
        host["cordoned"] or host["draining"] or host["shortage"]
    )
    return Text(str(free), "" if free else "yellow") if taking else Text("-", "bright_black")


def _link(host: Json) -> Text:
    link = host["link"]
    if link is None:
        return Text("local" if str(host["address"]).startswith("unix:") else "-")
    if not link["up"]:
        return Text("down", "red")
    if not link["docker"]:
        return Text("no Docker", "red")
    rtt = link["rtt_ms"]
    return Text("up" if rtt is None else f"{rtt:.1f} ms", "green")


def _labels(host: Json) -> str:
    return output.plain(
        " ".join(f"{key}={value}" if value else key for key, value in host["labels"].items())
    )
