"""What operators want of hosts: to join, to be cordoned, drained, removed. Called by the admin API;
services/pool/host_life.py does the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import Principal
from orchestrator.domain.pool import host, host_fields
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.services.deps import Deps

SLOTS_MAX = 1000
_KEY_LINE = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True, kw_only=True)
class NewHost:
    """A machine that was looked at and found fit, as an operator adds it."""

    name: str
    address: str  # ssh://user@host[:port]
    host_key: str  # the line that is pinned
    publish_address: str
    machine_id: str
    slots: int
    region: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


# --- operators ------------------------------------------------------------------------------------


def add(deps: Deps, who: Principal, new: NewHost) -> Host:
    """Put a host into the pool; the daemon links to it and admits it. Raises errors.InvalidInput,
    errors.Conflict (host_exists, machine_known)."""
    if not _KEY_LINE.fullmatch(new.host_key):
        raise errors.InvalidInput("that is no public host key", field="host_key")
    if not 1 <= new.slots <= SLOTS_MAX:
        raise errors.InvalidInput(f"a host has 1 to {SLOTS_MAX} slots", field="slots")
    now = deps.clock.now()
    made = Host(
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
    _none_like_it(deps, made)
    deps.store.hosts.put(made)
    note(deps, who.user_id, "host_added", made, f"{made.docker_url}, key {made.host_key[:40]}")
    deps.events.pool_changed()
    return made


def cordon(deps: Deps, who: Principal, name: str, *, cordoned: bool) -> Host:
    """Whether new placements may go there. What is there stays. Raises errors.NotFound,
    errors.Conflict (host_leaving)."""
    after = deps.store.hosts.change(
        find(deps, name).id,
        # Uncordoning also takes a drain back: sessions on their way go on to where they are going.
        lambda found: replace(
            _staying(found), cordoned=cordoned, drain=found.drain if cordoned else Drain.NONE
        ),
    )
    note(deps, who.user_id, "host_cordoned" if cordoned else "host_uncordoned", after)
    deps.events.pool_changed()
    return after


def drain(deps: Deps, who: Principal, name: str, how: Drain) -> Host:
    """Have a host emptied: no new placements, and its running sessions moved or left to end.
    Raises errors.NotFound, errors.Conflict (host_leaving; nowhere_to_go when there is no other host
    for them)."""
    found = find(deps, name)
    if how is Drain.MOVE and not deps.store.hosts.could_take(host.Wish(), without=[found.id]):
        raise errors.Conflict(
            f"no other host takes placements, so that nothing can move from {name}: add or uncordon"
            " one first, or let its sessions end with --wait",
            code="nowhere_to_go",
        )
    after = deps.store.hosts.change(found.id, lambda now: replace(_staying(now), drain=how))
    note(deps, who.user_id, "host_drained", after, how.value)
    deps.events.pool_changed()
    return after


def _staying(found: Host) -> Host:
    """Raises Conflict for one that is leaving: that is never taken back."""
    if found.drain is Drain.LEAVE:
        raise errors.Conflict(
            f"{found.name} is leaving the pool; add it again once it has left",
            code="host_leaving",
        )
    return found


def remove(deps: Deps, who: Principal, name: str, *, force: bool) -> None:
    """Have a host leave the pool; the daemon clears it and then forgets it. Raises errors.NotFound,
    errors.Conflict (host_in_use) when sessions are on it; with `force` they come back elsewhere as
    if the host had been lost."""
    found = find(deps, name)
    if not found.remote:
        raise errors.Conflict(
            "this machine's own engine can't be removed: set SPAWN_LOCAL_HOST=false and restart",
            code="host_is_local",
        )
    held = len(sessions_on(deps, found))
    if held and not force:
        raise errors.Conflict(
            f"{held} sessions are on {name}: move them first with --drain, or use --force to have"
            " them start again elsewhere",
            code="host_in_use",
            sessions=held,
        )
    deps.store.hosts.change(found.id, lambda now: replace(now, drain=Drain.LEAVE))
    note(deps, who.user_id, "host_removed", found, "forced" if force else "")
    deps.events.pool_changed()


def find(deps: Deps, name: str) -> Host:
    """Raises errors.NotFound that names those that there are."""
    found = deps.store.hosts.by_name(name)
    if found is None:
        names = ", ".join(one.name for one in deps.store.hosts.list()[:20]) or "none"
        raise errors.NotFound(f"there is no host {name!r}; there are: {names}", code="host_unknown")
    return found


def sessions_on(deps: Deps, found: Host) -> Sequence[Sandbox]:
    """The sandboxes there that belong to sessions."""
    boxes = deps.store.sandboxes.list(host_id=found.id)
    return [box for box in boxes if box.session_id is not None]


# --- what the links say ---------------------------------------------------------------------------


def _none_like_it(deps: Deps, made: Host) -> None:
    """One address is one host, and one endpoint must not mean two machines."""
    for known in deps.store.hosts.list():
        if known.docker_url == made.docker_url:
            raise errors.Conflict(
                f"{made.docker_url} is in the pool already, as {known.name}", code="host_exists"
            )
        if known.publish_address == made.publish_address:
            raise errors.Conflict(
                f"apps of {known.name} are published on {made.publish_address} already: each host"
                " needs an address of its own",
                code="publish_address_taken",
            )


def note(deps: Deps, actor: str, action: str, found: Host, detail: str = "") -> None:
    """Write down who did what to a host."""
    deps.store.audit.add(
        ports.AuditEntry(
            at=deps.clock.now(), actor=actor, action=action, subject=found.name, detail=detail
        )
    )
