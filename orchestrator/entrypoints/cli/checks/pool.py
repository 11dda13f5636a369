"""Checks each host as the control plane sees it, and the free slots. Used by `spawnctl doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.config import Settings
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import hosts

Json = dict[str, Any]


def check_pool(settings: Settings) -> Iterator[Finding]:
    """Needs an operator's key. Without one, yields a single warning that says so."""
    try:
        with Api.from_settings(settings) as api:
            pool = api.get("/api/admin/pool")
    except Problem as refusal:
        advice = refusal.advice[0] if refusal.advice else "spawnctl status"
        yield warning("hosts", f"can't be looked at: {output.plain(refusal.message)}", advice)
        return
    for host in pool["hosts"]:
        yield check_host(host)
    if pool["free_slots_short"]:
        yield warning(
            "free slots",
            f"{pool['free_slots']}, of the {pool['free_slots_wanted']} that are to stay free",
            "Add a host (spawnctl hosts add), uncordon one, or lower SPAWN_WARM_TARGET",
        )


def check_host(host: Json) -> Finding:
    """One host: its state, its slots, its link."""
    name = f"host {output.plain(host['name'])}"
    detail = f"{host['state']}, {host['used']} of {host['slots']} slots used"
    link = host["link"]
    if link and link["up"] and link["rtt_ms"] is not None:
        detail += f", {link['rtt_ms']:.1f} ms away"
    if note := hosts.note(host):
        detail += f": {note}"
    is_remote = str(host["address"]).startswith("ssh:")
    host_doctor = f"spawnctl hosts doctor {output.plain(host['name'])}"
    fix = host_doctor if is_remote else "See what doctor says of Docker"
    if host["state"] in {"suspect", "lost"}:
        return problem(name, detail, fix, f"host_{host['state']}")
    if host["state"] == "joining" or host["shortage"]:
        return warning(name, detail, fix)
    if host["changes_cpus"] is False:
        return warning(
            name,
            f"{detail}; its Docker can't change the CPU limit of a sandbox that runs, so apps start"
            " there with no more CPUs than they run with",
            "With gVisor (SPAWN_SANDBOX_RUNTIME) that is so. Otherwise see what docker update says",
        )
    return ok(name, detail)
