"""Endpoints for operators: the hosts of the pool. `spawnctl hosts` uses them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from orchestrator.domain.pool.host import Drain, Host, HostLoad
from orchestrator.entrypoints.api import auth
from orchestrator.entrypoints.api.answers import pool as answers
from orchestrator.entrypoints.api.auth import Operator
from orchestrator.entrypoints.api.bounds.inputs import (
    Body,
    Flag,
    HostAddress,
    HostInPath,
    HostKey,
    HostName,
    Labels,
    PublishAddress,
    Slots,
    Word,
    example,
)
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.errors.documented import failing
from orchestrator.ports import LinkGauges
from orchestrator.services.pool import drains
from orchestrator.services.pool import hosts as pool_hosts

router = APIRouter(prefix="/api/admin/hosts", tags=["hosts"], dependencies=[Depends(auth.operator)])


class NewHost(Body):
    """A machine that `spawnctl hosts add` has checked."""

    model_config = example(
        name="paris-1",
        address="ssh://root@10.0.0.5",
        host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEZoPeqZTjRjcJ4hPLvfZ6ePFZ1zYw+xF9Z0JkHv0v1m",
        publish_address="10.0.0.5",
        machine_id="0123456789abcdef0123456789abcdef",
        slots=20,
        region="eu-west",
        labels={"gpu": "yes"},
    )

    name: HostName
    address: HostAddress
    host_key: HostKey
    publish_address: PublishAddress
    machine_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    slots: Slots
    region: Word = ""
    labels: Labels = Field(default={})


class DrainOptions(Body):
    """What to do with the sessions on the host."""

    model_config = example(wait=False)

    wait: Flag = Field(
        default=False, description="Let them end by themselves instead of moving them."
    )


@router.get("")
def hosts(request: Request) -> answers.Hosts:
    """All hosts, with their use and the state of their links."""
    context = context_of(request)
    links = links_by_host(context)
    return {"hosts": [view(context, load, links) for load in context.deps.store.hosts.loads()]}


@router.get("/{name}")
def host(request: Request, name: HostInPath) -> answers.HostWithSandboxes:
    """One host, with its sandboxes."""
    context = context_of(request)
    return _host_with_sandboxes(context, pool_hosts.find(context.deps, name))


@router.post(
    "",
    status_code=201,
    responses=failing("host_exists", "machine_known", "publish_address_taken"),
)
def add(request: Request, principal: Operator, body: NewHost) -> answers.HostWithSandboxes:
    """Put a machine into the pool. It takes sandboxes once the daemon has admitted it."""
    context = context_of(request)
    new_host = pool_hosts.NewHost(**body.model_dump())
    return _host_with_sandboxes(context, pool_hosts.add(context.deps, principal, new_host))


@router.post("/{name}/cordon", responses=failing("host_leaving"))
def cordon(request: Request, principal: Operator, name: HostInPath) -> answers.HostWithSandboxes:
    """Place no new sandboxes on the host. The ones there stay."""
    context = context_of(request)
    host = pool_hosts.cordon(context.deps, principal, name, cordoned=True)
    return _host_with_sandboxes(context, host)


@router.post("/{name}/uncordon", responses=failing("host_leaving"))
def uncordon(request: Request, principal: Operator, name: HostInPath) -> answers.HostWithSandboxes:
    """Allow new sandboxes on the host again. This also ends a drain."""
    context = context_of(request)
    host = pool_hosts.cordon(context.deps, principal, name, cordoned=False)
    return _host_with_sandboxes(context, host)


@router.post("/{name}/drain", responses=failing("host_leaving", "nowhere_to_go"))
def drain(
    request: Request, principal: Operator, name: HostInPath, body: DrainOptions
) -> answers.HostWithSandboxes:
    """Empty a host: its running sessions move to other hosts, or end by themselves."""
    context = context_of(request)
    mode = Drain.WAIT if body.wait else Drain.MOVE
    return _host_with_sandboxes(context, pool_hosts.drain(context.deps, principal, name, mode))


@router.delete("/{name}", status_code=202, responses=failing("host_in_use", "host_is_local"))
def remove(
    request: Request, principal: Operator, name: HostInPath, force: bool = False
) -> answers.LeavingHost:
    """Remove a host from the pool. It is gone once `GET` answers 404."""
    context = context_of(request)
    pool_hosts.remove(context.deps, principal, name, force=force)
    return {"name": name, "drain": Drain.LEAVE}


def view(context: Context, load: HostLoad, links: Mapping[str, LinkGauges]) -> answers.Host:
    """A host as JSON."""
    host, shown = load.host, context.shown
    link = links.get(host.name)
    return {
        "name": host.name,
        "host_id": host.id,
        "state": host.state,
        "reason": host.reason,
        "since": shown(host.state_since),
        "cordoned": host.cordoned,
        "drain": host.drain,
        "draining": host.drain is not Drain.NONE,
        "slots": host.slots,
        "used": load.used,
        "starting": load.starting,
        "warm": load.warm,
        "region": host.region,
        "labels": dict(host.labels),
        "address": host.docker_url,
        "publish_address": host.publish_address,
        "host_key": host.host_key,
        "image": host.image,
        "shortage": host.shortage,
        "ports_set_aside": list(host.ports_set_aside(context.deps.clock.now())),
        "cpus": host.cpus,
        "changes_cpus": host.changes_cpus,
        "starts_at_once": host.starts.at_once,
        "generation": host.generation,
        "seen_at": shown(host.seen_at) if host.seen_at else None,
        "link": None if link is None else _link_view(link),
    }


def _link_view(link: LinkGauges) -> answers.Link:
    return {
        "up": link.up,
        "docker": link.docker,
        "channels": link.channels,
        "rtt_ms": None if link.rtt_s is None else round(link.rtt_s * 1000, 2),
        "reconnects": link.reconnects,
    }


def links_by_host(context: Context) -> Mapping[str, LinkGauges]:
    """The state of the hosts' SSH links, by name of the host, as the daemon posted it."""
    return {gauges.host: gauges for gauges in context.deps.board.read()}


def _host_with_sandboxes(context: Context, host: Host) -> answers.HostWithSandboxes:
    sandboxes = context.deps.store.sandboxes.list(host_id=host.id)
    reasons = drains.reasons_to_stay(context.deps, host, sandboxes)
    load = next(load for load in context.deps.store.hosts.loads() if load.host.id == host.id)
    return {
        **view(context, load, links_by_host(context)),
        "sandboxes": [
            {
                "sandbox_id": sandbox.id,
                "state": sandbox.state,
                "session_id": sandbox.session_id,
                "port": sandbox.port,
                "image": sandbox.image,
                "created_at": context.shown(sandbox.created_at),
                "reason": reasons.get(sandbox.id, sandbox.reason),
            }
            for sandbox in sandboxes
        ],
    }
