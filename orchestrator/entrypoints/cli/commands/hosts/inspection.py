"""Connects to a machine with our key, surveys it, and checks the survey. Used by `joining`.

A connection that fails is a finding too: one problem, with its fix.
"""

from __future__ import annotations

import asyncio
import random
import socket
from dataclasses import dataclass

from orchestrator.adapters.hosts.survey import survey_host
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh.connection import HostKey
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host_facts import Survey
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli.checks.host_fitness import Requirements, check_host
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level, problem
from orchestrator.entrypoints.cli.problems import Problem

_MIB = 1024**2
_PORTS = 20  # candidates for the test listener: apps may use some of them

_FIXES = {
    "unreachable": "Try it by hand: ssh -v -p {port} {user}@{host}",
    "sessions_refused": "spawnctl hosts bootstrap {address}",
    "login_refused": "spawnctl hosts key",
    "host_key_changed": "After a reinstallation: spawnctl hosts remove NAME --force; spawnctl"
    " hosts add {address} --name NAME --fingerprint SHA256:...",
}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The survey of a machine, and what the checks found in it."""

    survey: Survey | None  # None if the connection failed
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level is Level.PROBLEM)


def fetch_host_key(address: HostAddress) -> HostKey:
    """The host key that the machine shows. Raises errors.LinkDown."""
    return asyncio.run(ssh.fetch_host_key(address))


def inspect_machine(
    settings: Settings,
    address: HostAddress,
    pinned: str,
    publish_address: str,
    slots: int | None = None,
) -> Inspection:
    """Connect, survey and check. `pinned` is the line of the machine's host key. `slots` are those
    of the host; None for as many as memory and CPUs give."""
    requirements = Requirements(
        address=str(address),
        publish_address=publish_address,
        ports=settings.pool.ports,
        runtime=settings.sandbox.sandbox_runtime,
        disk_floor_bytes=settings.pool.host_disk_floor_mb * _MIB,
        memory_floor_bytes=settings.pool.host_memory_floor_mb * _MIB,
        slots=slots,
        proxies_known=bool(settings.pool.proxies),
    )
    try:
        survey = asyncio.run(_survey(settings, address, pinned, publish_address))
    except errors.Temporary as error:
        return Inspection(survey=None, findings=(connection_failed(error, address),))
    return Inspection(survey=survey, findings=tuple(check_host(survey, requirements)))


def connection_failed(error: errors.SpawnError, address: HostAddress) -> Finding:
    """The finding for a connection that failed."""
    fix = _FIXES.get(error.code, _FIXES["unreachable"]).format(
        user=address.user, host=address.host, port=address.port, address=address
    )
    return problem("connection", str(error), fix, error.code)


def choose_publish_address(requested: str, address: HostAddress) -> str:
    """The requested address, else the IPv4 address of the machine. Raises InvalidInput, Problem."""
    if requested:
        return host_fields.checked_publish_address(requested)
    try:
        resolved = socket.getaddrinfo(address.host, None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Problem(
            Exit.USAGE,
            "publish_address_needed",
            f"{address.host} has no IPv4 address, and apps are published on one",
            "Give one of the machine's with --publish-address",
        ) from error
    return host_fields.checked_publish_address(str(resolved[0][4][0]))


async def _survey(
    settings: Settings, address: HostAddress, pinned: str, publish_address: str
) -> Survey:
    first, last = settings.pool.port_range
    ports = random.sample(range(first, last + 1), min(_PORTS, last - first + 1))
    async with ssh.open_connection(
        address, key=settings.places.ssh_key, pinned=pinned
    ) as connection:
        return await survey_host(connection, publish_address, ports)
