"""Judges hosts by the sandboxes that are lost on them.

A host on which the sandboxes of several users die or never answer is set aside for a while. One
user's apps can't do that to it, and the last host that takes sandboxes is never set aside: its
users had nowhere to go. Called when a sandbox turns out dead or mute.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host, HostState, Wish
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.pool.silence import OVERDUE, find_silence
from orchestrator.services.deps import Deps
from orchestrator.slim import structlog

log = structlog.get_logger()


def record(deps: Deps, sandbox: Sandbox, owner: str) -> None:
    """Record that a host lost this sandbox, and set the host aside if it loses too many.

    `owner`: its user, or the sandbox itself if it was warm. Raises errors.NotFound if its host has
    left the pool.
    """
    now = deps.clock.now()

    def lose(host: Host) -> Host:
        is_former = sandbox.generation < host.generation
        return host if is_former else replace(host, losses=host.losses.with_loss(owner, now))

    host = deps.store.hosts.change(sandbox.host_id, lose)
    # Cheap, before all agents are counted: everybody on it is one of those who lost one.
    if host.state is not HostState.UP or not host.losses.are_the_hosts(()):
        return
    groups = deps.store.sandboxes.agent_groups(now - OVERDUE)
    if find_silence(groups).everywhere or is_last(deps, host.id):
        return
    owners = {group.owner for group in groups if group.host_id == host.id}

    def set_aside(current: Host) -> Host:
        lost = len(current.losses.owners)
        if current.state is not HostState.UP or not current.losses.are_the_hosts(owners):
            return current
        reason = f"sandboxes of {lost} users died or never answered on it within 5 minutes"
        suspect = current.transition(HostState.SUSPECT, now, reason)
        return replace(suspect, losses=current.losses.set_aside(now))

    after = deps.store.hosts.change(host.id, set_aside)
    if after.state is not host.state:
        log.error("host_loses_sandboxes", host=host.name, reason=after.reason)
        deps.events.hosts_changed()


def is_last(deps: Deps, host_id: HostId) -> bool:
    """Whether no other host takes sandboxes."""
    return not deps.store.hosts.any_accepts(Wish(), without=(host_id,))


def is_set_aside(deps: Deps, host: Host) -> bool:
    """Whether the host must not be admitted yet, because it loses sandboxes."""
    return host.losses.hold(deps.clock.now()) and not is_last(deps, host.id)
