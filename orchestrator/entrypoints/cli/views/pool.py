"""The pool as tables and facts. Used by `spawnctl pool` and `spawnctl status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.entrypoints.cli import output

Json = dict[str, Any]

_HOSTS_NAMED = 6  # the names of more hosts don't fit in one line


def summary(pool: Json) -> Iterator[tuple[str, str | Text]]:
    """How full the pool is, as names and values."""
    too_few = pool["warm"] < pool["warm_target"]
    warm = Text(f"{pool['warm']} of {pool['warm_target']} warm", "yellow" if too_few else "green")
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


def sandboxes_table(sandboxes: Sequence[Json], *, wide: bool) -> Table:
    """One line a sandbox. The narrow form fits 80 columns."""
    more = ("ROUTED", "SLUG", "REASON") if wide else ()
    table = output.table("SANDBOX", "STATE", "SESSION", "HOST", "PORT", "AGE", *more)
    for sandbox in sandboxes:
        cells: list[str | Text] = [
            output.short_id(sandbox["sandbox_id"]),
            output.state_text(sandbox["state"]),
            output.short_id(sandbox["session_id"]),
            output.truncate(sandbox["host"], 20),
            str(sandbox["port"] or "-"),
            output.age(sandbox["created_at"]),
        ]
        if wide:
            cells += [
                "yes" if sandbox["routed"] else "no",
                output.plain(sandbox["slug"] or "-"),
                output.truncate(sandbox["reason"] or "-", 40),
            ]
        table.add_row(*cells)
    return table


def _slots(pool: Json) -> Text:
    text = f"{pool['free_slots']} of {pool['slots']} free"
    if not pool["free_slots_short"]:
        return Text(text)
    wanted, missing = pool["free_slots_wanted"], pool["free_slots_short"]
    return Text(
        f"{text}: {missing} fewer than the {wanted} that are to stay free (SPAWN_FREE_SLOTS); add a"
        " host, or end sessions",
        "yellow",
    )


def _host_names(hosts: Sequence[Json]) -> Text:
    if not hosts:
        return Text("none has joined yet", "yellow")
    if len(hosts) <= _HOSTS_NAMED:
        return Text(", ").join(
            Text.assemble(output.plain(host["name"]), " ", output.state_text(host["state"]))
            for host in hosts
        )
    states = Counter(host["state"] for host in hosts)
    return Text(", ").join(
        Text.assemble(str(count), " ", output.state_text(state))
        for state, count in states.most_common()
    )


def _queues(depths: Json | None) -> Text:
    if depths is None:
        return Text("unknown: Redis does not answer", "red")
    waiting = [f"{depth} {output.plain(name)}" for name, depth in depths.items() if depth]
    return Text(", ".join(waiting) or "empty")
