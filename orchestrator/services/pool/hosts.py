"""Adds, cordons, drains and removes hosts for operators. Called by the admin API.

These functions only write what is wanted. services/pool/host_life.py does the work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import Principal
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host import Drain, Host, HostState, Wish
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.services.deps import Deps

SLOTS_MAX = 1000
KEY_LINE = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True, kw_only=True)
class NewHost:
    """A machine that was surveyed and found fit, as an operator adds it."""

    name: str
    address: str  # ssh://user@host[:port]
    host_key: str  # the pinned line, "ssh-ed25519 AAAA..."
    publish_address: str
    machine_id: str
    slots: int
    region: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def add(deps: Deps, principal: Principal, new: NewHost) -> Host:
    """Add a host to the pool. The daemon then connects to it and admits it.

    Raises errors.InvalidInput, errors.Conflict (host_exists, publish_address_taken,
    machine_known).
    """
    if not KEY_LINE.fullmatch(new.host_key):
        raise errors.InvalidInput("that is no public host key", field="host_key")
    if not 1 <= new.slots <= SLOTS_MAX:
        raise errors.InvalidInput(f"a host has 1 to {SLOTS_MAX} slots", field="slots")
    now = deps.clock.now()
    host = Host(
        id=ids.new_host_id(),
        name=host_fields.checked_name(new.name),
        docker_url=str(host_fields.parse_address(new.address)),
        publish_address=host_fields.checked_publish_address(new.publish_address),
        agent_folder=deps.policy.agent_folder_of_hosts,
        state=HostState.JOINING,
        slots=new.slots,
        created_at=now,
        state_since=now,
        host_key=new.host_key,
        machine_id=new.machine_id,
        region=host_fields.checked_region(new.region),
        labels=host_fields.checked_labels(new.labels),
        reason="it was just added",
    )
    _check_unique(deps, host)
    deps.store.hosts.put(host)
    detail = f"{host.docker_url}, key {host.host_key[:40]}"
    audit(deps, principal.user_id, "host_added", host, detail)
    deps.events.hosts_changed()
    return host


def cordon(deps: Deps, principal: Principal, name: str, *, cordoned: bool) -> Host:
    """Stop new placements on a host, or allow them again. What runs there stays.

    Raises errors.NotFound, errors.Conflict (host_leaving).
    """

    def change(host: Host) -> Host:
        _check_not_leaving(host)
        # Uncordoning also ends a drain. Sessions that are moving already go on to their new host.
        return replace(host, cordoned=cordoned, drain=host.drain if cordoned else Drain.NONE)

    host = deps.store.hosts.change(find(deps, name).id, change)
    audit(deps, principal.user_id, "host_cordoned" if cordoned else "host_uncordoned", host)
    deps.events.hosts_changed()
    return host


def drain(deps: Deps, principal: Principal, name: str, mode: Drain) -> Host:
    """Empty a host: no new placements; its sessions move away, or stay until they end.

    Raises errors.NotFound, errors.Conflict (host_leaving, and nowhere_to_go if no other host can
    take the sessions).
    """
    host = find(deps, name)
    if mode is Drain.MOVE and not deps.store.hosts.any_accepts(Wish(), without=[host.id]):
        raise errors.Conflict(
            f"no other host takes placements, so nothing can move from {name}: add or uncordon"
            " one first, or let its sessions end with --wait",
            code="nowhere_to_go",
        )

    def change(host: Host) -> Host:
        _check_not_leaving(host)
        return replace(host, drain=mode)

    drained = deps.store.hosts.change(host.id, change)
    audit(deps, principal.user_id, "host_drained", drained, mode.value)
    deps.events.hosts_changed()
    return drained


def remove(deps: Deps, principal: Principal, name: str, *, force: bool) -> None:
    """Tell a host to leave the pool. The daemon clears it and then deletes it.

    Raises errors.NotFound, errors.Conflict (host_is_local, and host_in_use if sessions are on it).
    With `force` those sessions start again elsewhere, as if the host had been lost.
    """
    host = find(deps, name)
    if not host.is_remote:
        raise errors.Conflict(
            "this machine's own engine can't be removed: set SPAWN_LOCAL_HOST=false and restart",
            code="host_is_local",
        )
    occupied = len(_list_occupied_sandboxes(deps, host))
    if occupied and not force:
        raise errors.Conflict(
            f"{occupied} sessions are on {name}: move them first with --drain, or use --force to"
            " start them again elsewhere",
            code="host_in_use",
            sessions=occupied,
        )
    deps.store.hosts.change(host.id, lambda host: replace(host, drain=Drain.LEAVE))
    audit(deps, principal.user_id, "host_removed", host, "forced" if force else "")
    deps.events.hosts_changed()


def find(deps: Deps, name: str) -> Host:
    """The host with this name. Raises errors.NotFound, which lists the names that exist."""
    host = deps.store.hosts.by_name(name) if host_fields.is_name(name) else None
    if host is None:
        names = ", ".join(host.name for host in deps.store.hosts.list()[:20]) or "none"
        raise errors.NotFound(
            f"there is no host {errors.quoted(name)}; there are: {names}", code="host_unknown"
        )
    return host


def audit(deps: Deps, actor: str, action: str, host: Host, detail: str = "") -> None:
    """Record who did what to a host."""
    deps.store.audit.add(
        ports.AuditEntry(
            at=deps.clock.now(), actor=actor, action=action, subject=host.name, detail=detail
        )
    )


def _check_not_leaving(host: Host) -> None:
    """Raises errors.Conflict (host_leaving): a removal is never taken back."""
    if host.drain is Drain.LEAVE:
        raise errors.Conflict(
            f"{host.name} is leaving the pool; add it again once it has left",
            code="host_leaving",
        )


def _list_occupied_sandboxes(deps: Deps, host: Host) -> Sequence[Sandbox]:
    """The sandboxes on a host that belong to sessions."""
    sandboxes = deps.store.sandboxes.list(host_id=host.id)
    return [sandbox for sandbox in sandboxes if sandbox.session_id is not None]


def _check_unique(deps: Deps, new: Host) -> None:
    """One address is one host. The store itself refuses a name, a machine or a publish address
    that another host has."""
    for host in deps.store.hosts.list():
        if host.docker_url == new.docker_url:
            raise errors.Conflict(
                f"{new.docker_url} is in the pool already, as {host.name}", code="host_exists"
            )
