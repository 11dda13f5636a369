"""Doctor's look at the pool: a line for each host, as the control plane sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.config import Settings
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import hosts as host_view

Json = dict[str, Any]


def hosts(settings: Settings) -> Iterator[Finding]:
    """Needs an operator's key; without one that is all there is to say."""
    try:
        with Api.of(settings) as api:
            found = api.get("/api/admin/pool")
    except Problem as refused:
        advice = refused.advice[0] if refused.advice else "spawnctl status"
        yield warning("hosts", f"can't be looked at: {output.plain(refused.message)}", advice)
        return
    for one in found["hosts"]:
        yield of_host(one)
    if found["free_slots_short"]:
        yield warning(
            "free slots",
            f"{found['free_slots']}, of the {found['free_slots_wanted']} that are to stay free",
            "Add a host (spawnctl hosts add), uncordon one, or lower SPAWN_WARM_TARGET",
        )


def of_host(found: Json) -> Finding:
    """One host."""
    name = f"host {output.plain(found['name'])}"
    said = f"{found['state']}, {found['used']} of {found['slots']} slots used"
    link = found["link"]
    if link and link["up"] and link["rtt_ms"] is not None:
        said += f", {link['rtt_ms']:.1f} ms away"
    if note := host_view.note(found):
        said += f": {note}"
    look = f"spawnctl hosts doctor {output.plain(found['name'])}"
    fix = look if str(found["address"]).startswith("ssh:") else "See what doctor says of Docker"
    if found["state"] in {"suspect", "lost"}:
        return problem(name, said, fix, f"host_{found['state']}")
    if found["state"] == "joining" or found["shortage"]:
        return warning(name, said, fix)
    return ok(name, said)
