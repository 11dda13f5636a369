"""Connects to a machine with our key, looks at it, and says what is wrong. Used by hosts_joining.

Its errors are findings too: a machine that can't be reached is one problem with its fix.
"""

from __future__ import annotations

import asyncio
import random
import socket
from dataclasses import dataclass

from orchestrator.adapters.hosts import survey as host_survey
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh.connection import HostKey
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host_facts import Survey
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli.checks import host as checks_host
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level, problem
from orchestrator.entrypoints.cli.problems import Problem

_MIB = 1024**2
_PORTS = 20  # candidates for the listener: some may be taken by apps

_FIXES = {
    "unreachable": "Try it by hand: ssh -v -p {port} {user}@{host}",
    "sessions_refused": "spawnctl hosts bootstrap {address}",
    "login_refused": "spawnctl hosts key",
    "host_key_changed": "After a reinstallation: spawnctl hosts remove NAME --force; spawnctl"
    " hosts add {address} --name NAME --fingerprint SHA256:...",
}


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What came of looking at a machine."""

    survey: Survey | None  # None: there was no connection
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.level is Level.PROBLEM)


def host_key(address: HostAddress) -> HostKey:
    """What the machine shows. Raises errors.LinkDown."""
    return asyncio.run(ssh.host_key(address))


def look(settings: Settings, address: HostAddress, pinned: str, publish_address: str) -> Looked:
    """Connect, look, and judge."""
    wanted = checks_host.Wanted(
        address=str(address),
        publish_address=publish_address,
        ports=settings.pool.ports,
        runtime=settings.sandbox.sandbox_runtime,
        disk_floor_bytes=settings.pool.host_disk_floor_mb * _MIB,
        memory_floor_bytes=settings.pool.host_memory_floor_mb * _MIB,
    )
    try:
        survey = asyncio.run(_survey(settings, address, pinned, publish_address))
    except errors.Temporary as error:
        return Looked(survey=None, findings=(failed(error, address),))
    return Looked(survey=survey, findings=tuple(checks_host.examine(survey, wanted)))


def failed(error: errors.SpawnError, address: HostAddress) -> Finding:
    """The finding that there is no connection."""
    fix = _FIXES.get(error.code, _FIXES["unreachable"]).format(
        user=address.user, host=address.host, port=address.port, address=address
    )
    return problem("connection", str(error), fix, error.code)


def publish_address(asked: str, address: HostAddress) -> str:
    """What was asked for, else the address of the machine. Raises InvalidInput, Problem."""
    if asked:
        return host_fields.checked_publish_address(asked)
    try:
        found = socket.getaddrinfo(address.host, None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Problem(
            Exit.USAGE,
            "publish_address_needed",
            f"{address.host} has no IPv4 address, and apps are published on one",
            "Give one of the machine's with --publish-address",
        ) from error
    return host_fields.checked_publish_address(str(found[0][4][0]))


async def _survey(
    settings: Settings, address: HostAddress, pinned: str, publish_address: str
) -> Survey:
    first, last = settings.pool.port_range
    ports = random.sample(range(first, last + 1), min(_PORTS, last - first + 1))
    async with ssh.connected(address, key=settings.places.ssh_key, pinned=pinned) as connection:
        return await host_survey.look(connection, publish_address, ports)
