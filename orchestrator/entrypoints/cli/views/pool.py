"""The pool as tables and facts. Used by `spawnctl pool` and `spawnctl status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.entrypoints.cli import output

Json = dict[str, Any]

_HOSTS_NAMED = 6  # beyond it a line has no room for their names


def level(pool: Json) -> Iterator[tuple[str, str | Text]]:
    """How full it is."""
    short_of = pool["warm"] < pool["warm_target"]
    warm = Text(f"{pool['warm']} of {pool['warm_target']} warm", "yellow" if short_of else "green")
    others = [
        f"{pool[name]} {name}"
        for name in ("creating", "claimed", "stopping", "broken")
        if pool[name]
    ]
    yield "sandboxes", Text(", ").join([warm, *map(Text, others)])
    yield "slots", _slots(pool)
    if pool["waiting"]:
        yield "waiting", Text(f"{pool['waiting']} sessions wait for a sandbox", "yellow")
    yield "hosts", _host_names(pool["hosts"])
    yield "queues", _queues(pool["queues"])


def sandboxes(found: Sequence[Json], *, wide: bool) -> Table:
    """One line a sandbox; 80 columns hold the narrow form."""
    more = ("ROUTED", "SLUG", "REASON") if wide else ()
    made = output.table("SANDBOX", "STATE", "SESSION", "HOST", "PORT", "AGE", *more)
    for box in found:
        cells: list[str | Text] = [
            output.short(box["sandbox_id"]),
            output.state(box["state"]),
            output.short(box["session_id"]),
            output.cut(box["host"], 20),
            str(box["port"] or "-"),
            output.since(box["created_at"]),
        ]
        if wide:
            cells += [
                "yes" if box["routed"] else "no",
                output.plain(box["slug"] or "-"),
                output.cut(box["reason"] or "-", 40),
            ]
        made.add_row(*cells)
    return made


def _slots(pool: Json) -> Text:
    said = f"{pool['free_slots']} of {pool['slots']} free"
    if not pool["free_slots_short"]:
        return Text(said)
    wanted, short = pool["free_slots_wanted"], pool["free_slots_short"]
    return Text(
        f"{said}: {short} fewer than the {wanted} that are to stay free (SPAWN_FREE_SLOTS); add a"
        " host, or end sessions",
        "yellow",
    )


def _host_names(found: Sequence[Json]) -> Text:
    if not found:
        return Text("none has joined yet", "yellow")
    if len(found) <= _HOSTS_NAMED:
        return Text(", ").join(
            Text.assemble(output.plain(host["name"]), " ", output.state(host["state"]))
            for host in found
        )
    states = Counter(host["state"] for host in found)
    return Text(", ").join(
        Text.assemble(str(count), " ", output.state(name)) for name, count in states.most_common()
    )


def _queues(depths: Json | None) -> Text:
    if depths is None:
        return Text("unknown: Redis does not answer", "red")
    waiting = [f"{depth} {output.plain(name)}" for name, depth in depths.items() if depth]
    return Text(", ".join(waiting) or "empty")
