"""How to reach a host that is in the pool: from the API, or while that is away from the inventory.

Used by commands that connect to hosts themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.adapters.hosts import inventory
from orchestrator.adapters.hosts.inventory import Entry
from orchestrator.config import Settings
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands.hosts.paths import ALL, one
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem


def find(settings: Settings, name: str) -> Entry:
    """One host, reached by SSH. Raises Problem: host_unknown, host_is_local."""
    try:
        with Api.of(settings) as api:
            entry = _entry(api.get(one(name)))
    except Problem as problem:
        if problem.exit_code is not Exit.UNREACHABLE:
            raise
        entry = in_inventory(settings, name)
    if not entry.docker_url.startswith("ssh://"):
        raise is_local(name, "spawnctl doctor")
    return entry


def remote(settings: Settings) -> Sequence[Entry]:
    """All hosts that are reached by SSH. Raises Problem."""
    with Api.of(settings) as api:
        found = [_entry(shown) for shown in api.get(ALL)["hosts"]]
    return [entry for entry in found if entry.docker_url.startswith("ssh://")]


def in_inventory(settings: Settings, name: str) -> Entry:
    """As the daemon last knew it. Raises Problem (host_unknown), errors.NotFound,
    errors.InvalidInput."""
    entries = inventory.read(settings.places.inventory)
    found = next((entry for entry in entries if entry.name == name), None)
    if found is None:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise Problem(
            Exit.NOT_FOUND,
            "host_unknown",
            f"{settings.places.inventory} has no host {name!r}; it has: {names}",
        )
    return found


def is_local(name: str, instead: str) -> Problem:
    """For a command that connects; `instead` is the one to use."""
    return Problem(
        Exit.CONFLICT,
        "host_is_local",
        f"{output.plain(name)} is this machine: there is no connection to it",
        f"Run here what you want to run there: {instead}",
    )


def address_of(entry: Entry) -> HostAddress:
    return host_fields.parse_address(entry.docker_url)


def _entry(shown: dict[str, Any]) -> Entry:
    return Entry(
        name=shown["name"],
        docker_url=shown["address"],
        host_key=shown["host_key"],
        publish_address=shown["publish_address"],
        region=shown["region"],
    )
