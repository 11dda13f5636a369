"""Hosts as tables and facts. Used by `spawnctl hosts` and `pool`, and by doctor's checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.entrypoints.cli import output

Json = dict[str, Any]

_DRAINS = {"wait": "draining, its sessions may end", "move": "draining", "leave": "leaving"}


def hosts_table(hosts: Sequence[Json], *, wide: bool) -> Table:
    """One line a host. The narrow form fits 80 columns."""
    more = ("CHANNELS", "ADDRESS", "PUBLISHES ON", "LABELS") if wide else ()
    columns = ("HOST", "STATE", "REGION", "USED", "WARM", "FREE", "LINK", *more, "NOTE")
    table = output.table(*columns, wrap={"NOTE", "LABELS"})
    for host in hosts:
        cells: list[str | Text] = [
            output.truncate(host["name"], 20),
            output.state_text(host["state"]),
            output.truncate(host["region"] or "-", 12),
            f"{host['used']}/{host['slots']}",
            str(host["warm"]),
            _free_slots(host),
            _link(host),
        ]
        if wide:
            cells += [
                str(host["link"]["channels"]) if host["link"] else "-",
                output.plain(host["address"]),
                output.plain(host["publish_address"]),
                _labels(host) or "-",
            ]
        table.add_row(*cells, note(host) or "-")
    return table


def note(host: Json) -> str:
    """In one line: the operator's marks, what the host is short of, and why it isn't up."""
    marks = []
    if host["cordoned"]:
        marks.append("cordoned")
    if host["draining"]:
        marks.append(_DRAINS.get(host["drain"], "draining"))
    return "; ".join(
        output.plain(part) for part in (*marks, host["shortage"], host["reason"]) if part
    )


def details(host: Json) -> Iterator[RenderableType]:
    """Everything about one host, then its sandboxes."""
    yield output.facts(_facts(host))
    if host["sandboxes"]:
        yield Text()
        yield _sandboxes_table(host["sandboxes"])


def _facts(host: Json) -> Iterator[tuple[str, str | Text]]:
    yield "host", Text(output.plain(host["name"]), "bold")
    state = Text.assemble(output.state_text(host["state"]), f" for {output.age(host['since'])}")
    yield "state", state
    if text := note(host):
        yield "note", Text(text, "yellow")
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
    if held := host["ports_set_aside"]:
        yield (
            "ports set aside",
            Text(f"{', '.join(map(str, held))}: other programs hold them", "yellow"),
        )
    if host["changes_cpus"] is False:
        yield "CPU limits", Text("its Docker can't change them: starts get no more CPUs", "yellow")
    if host["host_key"]:
        yield "host key", output.plain(host["host_key"])
    yield "generation", str(host["generation"])


def _sandboxes_table(sandboxes: Sequence[Json]) -> Table:
    table = output.table("SANDBOX", "STATE", "SESSION", "PORT", "AGE", "REASON", wrap={"REASON"})
    for sandbox in sandboxes:
        table.add_row(
            output.short_id(sandbox["sandbox_id"]),
            output.state_text(sandbox["state"]),
            output.short_id(sandbox["session_id"]),
            str(sandbox["port"] or "-"),
            output.age(sandbox["created_at"]),
            output.plain(sandbox["reason"]) or "-",
        )
    return table


def _free_slots(host: Json) -> Text:
    """The slots that a new sandbox could take; "-" for a host that takes no new sandbox."""
    free = max(0, host["slots"] - host["used"])
    is_open = host["state"] == "up" and not (
        host["cordoned"] or host["draining"] or host["shortage"]
    )
    return Text(str(free), "" if free else "yellow") if is_open else Text("-", "bright_black")


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
