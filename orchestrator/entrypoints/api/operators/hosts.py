"""Endpoints for operators: the hosts of the pool. What `spawnctl hosts` talks to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.domain.pool.host import Drain, Host, HostLoad
from orchestrator.entrypoints.api import auth
from orchestrator.entrypoints.api.auth import Operator
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.ports import LinkGauges
from orchestrator.services.pool import hosts as service

router = APIRouter(prefix="/api/admin/hosts", tags=["hosts"], dependencies=[Depends(auth.operator)])


class NewHost(BaseModel):
    """A machine that `spawnctl hosts add` looked at and found fit."""

    model_config = ConfigDict(extra="forbid")

    name: str
    address: str = Field(description="ssh://user@host[:port]")
    host_key: str = Field(description="Its public key, which is pinned: `ssh-ed25519 AAAA...`.")
    publish_address: str = Field(description="Address of it that the proxy reaches.")
    machine_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    slots: int
    region: str = ""
    labels: dict[str, str] = {}


class HowToDrain(BaseModel):
    """What becomes of the sessions there."""

    model_config = ConfigDict(extra="forbid")

    wait: bool = Field(default=False, description="Leave them to end instead of moving them.")


@router.get("")
def hosts(request: Request) -> dict[str, Any]:
    """All hosts, with what is on them and how their links are."""
    context = context_of(request)
    links = _links(context)
    return {"hosts": [view(load, links) for load in context.deps.store.hosts.loads()]}


@router.get("/{name}")
def host(request: Request, name: str) -> dict[str, Any]:
    """One host, with its sandboxes."""
    context = context_of(request)
    return _shown(context, service.find(context.deps, name))


@router.post("", status_code=201)
def add(request: Request, who: Operator, body: NewHost) -> dict[str, Any]:
    """Put a machine into the pool. It takes sandboxes once the daemon has admitted it."""
    context = context_of(request)
    return _shown(context, service.add(context.deps, who, service.NewHost(**body.model_dump())))


@router.post("/{name}/cordon")
def cordon(request: Request, who: Operator, name: str) -> dict[str, Any]:
    """No new placements there; what is there stays."""
    context = context_of(request)
    return _shown(context, service.cordon(context.deps, who, name, cordoned=True))


@router.post("/{name}/uncordon")
def uncordon(request: Request, who: Operator, name: str) -> dict[str, Any]:
    """Placements again; a drain that is under way ends too."""
    context = context_of(request)
    return _shown(context, service.cordon(context.deps, who, name, cordoned=False))


@router.post("/{name}/drain")
def drain(request: Request, who: Operator, name: str, body: HowToDrain) -> dict[str, Any]:
    """Have it emptied: its running sessions move to other hosts, or end by themselves."""
    context = context_of(request)
    how = Drain.WAIT if body.wait else Drain.MOVE
    return _shown(context, service.drain(context.deps, who, name, how))


@router.delete("/{name}", status_code=202)
def remove(request: Request, who: Operator, name: str, force: bool = False) -> dict[str, Any]:
    """Have it leave the pool; 404 on the next look says that it has."""
    context = context_of(request)
    service.remove(context.deps, who, name, force=force)
    return {"name": name, "drain": Drain.LEAVE}


def view(load: HostLoad, links: Mapping[str, LinkGauges]) -> dict[str, Any]:
    """A host as JSON."""
    one = load.host
    link = links.get(one.name)
    return {
        "name": one.name,
        "host_id": one.id,
        "state": one.state,
        "reason": one.reason,
        "since": one.state_since.isoformat(),
        "cordoned": one.cordoned,
        "drain": one.drain,
        "draining": one.drain is not Drain.NONE,
        "slots": one.slots,
        "used": load.used,
        "starting": load.starting,
        "warm": load.warm,
        "region": one.region,
        "labels": dict(one.labels),
        "address": one.docker_url,
        "publish_address": one.publish_address,
        "host_key": one.host_key,
        "image": one.image,
        "shortage": one.shortage,
        "starts_at_once": one.starts.at_once,
        "generation": one.generation,
        "seen_at": one.seen_at.isoformat() if one.seen_at else None,
        "link": None
        if link is None
        else {
            "up": link.up,
            "docker": link.docker,
            "channels": link.channels,
            "rtt_ms": None if link.rtt_s is None else round(link.rtt_s * 1000, 2),
            "reconnects": link.reconnects,
        },
    }


def _links(context: Context) -> Mapping[str, LinkGauges]:
    return {one.host: one for one in context.deps.board.read()}


def _shown(context: Context, found: Host) -> dict[str, Any]:
    boxes = context.deps.store.sandboxes.list(host_id=found.id)
    load = next(load for load in context.deps.store.hosts.loads() if load.host.id == found.id)
    return {
        **view(load, _links(context)),
        "sandboxes": [
            {
                "sandbox_id": box.id,
                "state": box.state,
                "session_id": box.session_id,
                "port": box.port,
                "image": box.image,
                "created_at": box.created_at.isoformat(),
                "reason": box.reason,
            }
            for box in boxes
        ],
    }
