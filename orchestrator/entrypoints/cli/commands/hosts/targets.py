"""Finds out how to reach a host of the pool: from the API, or from the inventory if it is away.

Used by the commands that connect to hosts themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.adapters.hosts import inventory
from orchestrator.adapters.hosts.inventory import Entry
from orchestrator.config import Settings
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.client import HOSTS, Api, Json, host_path
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem


def find_host(settings: Settings, name: str) -> Entry:
    """One host that is reached by SSH. Raises Problem: host_unknown, host_is_local."""
    try:
        with Api.from_settings(settings) as api:
            entry = _entry(api.get(host_path(name)))
    except Problem as problem:
        if problem.exit_code is not Exit.UNREACHABLE:
            raise
        entry = find_in_inventory(settings, name)
    if not entry.docker_url.startswith("ssh://"):
        raise host_is_local(name, "spawnctl doctor")
    return entry


def list_remote_hosts(settings: Settings) -> Sequence[Entry]:
    """All hosts that are reached by SSH. Raises Problem."""
    with Api.from_settings(settings) as api:
        entries = [_entry(host) for host in api.get(HOSTS)["hosts"]]
    return [entry for entry in entries if entry.docker_url.startswith("ssh://")]


def find_in_inventory(settings: Settings, name: str) -> Entry:
    """One host as the daemon last recorded it. Raises Problem (host_unknown), errors.NotFound,
    errors.InvalidInput."""
    entries = inventory.read(settings.places.inventory)
    for entry in entries:
        if entry.name == name:
            return entry
    names = ", ".join(entry.name for entry in entries) or "none"
    raise Problem(
        Exit.NOT_FOUND,
        "host_unknown",
        f"{settings.places.inventory} has no host {name!r}; it has: {names}",
    )


def host_is_local(name: str, instead: str) -> Problem:
    """The host can't be connected to: it is this machine. `instead` is the command to use."""
    return Problem(
        Exit.CONFLICT,
        "host_is_local",
        f"{output.plain(name)} is this machine: there is no connection to it",
        f"Run here what you want to run there: {instead}",
    )


def address_of(entry: Entry) -> HostAddress:
    return host_fields.parse_address(entry.docker_url)


def _entry(host: Json) -> Entry:
    return Entry(
        name=host["name"],
        docker_url=host["address"],
        host_key=host["host_key"],
        publish_address=host["publish_address"],
        region=host["region"],
    )
