"""Setting right what a diagnosis finds, and clearing what is to go.

Called by the loops of the daemon; each function is one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.pool import diagnosis
from orchestrator.domain.pool.diagnosis import (
    Container,
    LooseEnd,
    Orphan,
    Silent,
    Stuck,
    Unnoticed,
    Vanished,
)
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims


@dataclass(frozen=True, kw_only=True)
class Treated:
    """What one reconcile pass did on one host."""

    orphans: int = 0
    broken: int = 0
    unsure: int = 0  # what seemed to be amiss, and wasn't at the second look: worth a third


def reconcile(
    deps: Deps, host: Host, containers: Sequence[Container], agents_heard_since: datetime
) -> Treated:
    """Compare the containers of one host with the store, and set right what differs. `containers`
    were read before this call. Raises EngineUnavailable."""
    boxes = deps.store.sandboxes.list(host_id=host.id)
    heard_since = max(agents_heard_since, host.state_since)
    engine = deps.engines.of(host)
    orphans = broken = unsure = 0
    for found in diagnosis.diagnose(containers, boxes, deps.clock.now(), heard_since):
        try:
            match found:
                case Orphan():
                    engine.remove(found.container.sandbox_id)
                    orphans += 1
                case Vanished(sure=False) if _came_up(engine, found.sandbox):
                    unsure += 1
                case Vanished() | Stuck() | Silent():
                    _break(deps, found.sandbox, found.reason)
                    broken += 1
        except (errors.StaleWrite, errors.NotFound):
            continue  # it moved since we looked; the next pass looks again
    return Treated(orphans=orphans, broken=broken, unsure=unsure)


def clear(deps: Deps) -> int:
    """Bring what is BROKEN or STOPPING a step further, on whatever host: none of this needs to
    know what runs there. How many were let go."""
    done = 0
    for found in diagnosis.loose(deps.store.sandboxes.loose()):
        try:
            done += _clear(deps, found)
        except (errors.Temporary, errors.NotFound):
            continue  # it changed, or its Docker fails: the next pass tries again
    return done


def empty(deps: Deps, host: Host) -> int:
    """Remove every container of this installation on a host, whatever the store says, and the
    network and the rules around them; how many containers there were.

    For `spawnctl down`: sessions stay in the store, and come back from their bundles at the next
    start. Only when no worker and no loop runs any more.
    """
    engine = deps.engines.of(host)
    containers = engine.containers()
    for container in containers:
        engine.remove(container.sandbox_id)
    engine.dismantle()
    return len(containers)


def make_due(deps: Deps, box: Sandbox) -> None:
    """Have a session act on its broken sandbox. A lost race here is made up for by the next pass:
    the sandbox is then Unnoticed."""
    if box.session_id is None:
        return
    found = deps.store.sessions.get(box.session_id)
    nudge(deps, deps.store.sessions.save(replace(found, due_at=deps.clock.now())))


def _came_up(engine: ports.Engine, box: Sandbox) -> bool:
    """Whether the container of a sandbox that seemed to have none runs after all: it was started
    and written down between the two looks that a diagnosis compares."""
    return any(one.sandbox_id == box.id and one.running for one in engine.containers())


def _break(deps: Deps, box: Sandbox, reason: str) -> None:
    broken = box.transition(SandboxState.BROKEN, deps.clock.now(), reason)
    deps.store.sandboxes.save(broken, expected=box.state)
    deps.events.routes_changed()
    make_due(deps, box)


def _clear(deps: Deps, found: LooseEnd) -> int:
    box = found.sandbox
    if isinstance(found, Unnoticed):
        make_due(deps, box)
        return 0
    if box.state is SandboxState.BROKEN:
        claims.retire(deps, box, box.reason)
    elif box.routed:
        return 0  # the publisher confirms its withdrawal first
    else:
        claims.remove(deps, box)
    return 1
