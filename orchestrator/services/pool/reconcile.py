"""Repairs the differences between the store and Docker, and clears sandboxes that are to go.

Each function is one pass. Called by the daemon's loops, and by `spawnctl down`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.host_liveness import is_explained_by_outage
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.pool.sandbox_diagnosis import (
    Container,
    LooseEnd,
    Orphan,
    Silent,
    Stuck,
    Unnoticed,
    Vanished,
    diagnose,
    find_loose_ends,
)
from orchestrator.domain.pool.silence import Hearing
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims, host_losses

_SWEEPS_MAX = 3


@dataclass(frozen=True, kw_only=True)
class ReconcileResult:
    """What one reconcile pass did on one host."""

    orphans: int = 0  # containers whose removal has begun
    broken: int = 0  # sandboxes that were marked BROKEN
    uncertain: int = 0  # sandboxes whose container came up meanwhile: compare this host again soon


def reconcile(
    deps: Deps,
    host: Host,
    containers: Sequence[Container],
    hearing: Hearing,
    remove_later: Callable[[Host, Container], bool],
) -> ReconcileResult:
    """Compare the containers of one host with the store, and repair what differs.

    The caller must read `containers` before this call. `hearing` is when an agent of this host
    would have been heard. Passes each orphan to `remove_later`, which returns whether its removal
    begins now. Raises errors.EngineUnavailable.
    """
    sandboxes = deps.store.sandboxes.list(host_id=host.id)
    engine = deps.engines.for_host(host)
    orphans = broken = uncertain = 0
    for diagnosis in diagnose(containers, sandboxes, deps.clock.now(), hearing):
        try:
            match diagnosis:
                case Orphan():
                    orphans += remove_later(host, diagnosis.container)
                case Vanished(sure=False) if is_running(engine, diagnosis.sandbox.id):
                    uncertain += 1
                case Vanished():
                    # An engine that ends stops them all. It has to be asked again once it is back.
                    engine.check_open()
                    _mark_vanished(deps, diagnosis)
                    broken += 1
                case Stuck() | Silent():
                    mark_broken(deps, diagnosis.sandbox, diagnosis.reason)
                    broken += 1
                    if isinstance(diagnosis, Stuck) and diagnosis.sandbox.container_id is not None:
                        _blame_host(deps, diagnosis.sandbox)
        except (errors.StaleWrite, errors.NotFound):
            continue  # it changed since we read it; the next pass compares again
    return ReconcileResult(orphans=orphans, broken=broken, uncertain=uncertain)


def clear_loose_ends(deps: Deps, remove_later: Callable[[Sandbox], bool]) -> int:
    """Advance BROKEN and STOPPING sandboxes on all hosts by one step.

    Asks no engine. Passes each sandbox whose route is withdrawn to `remove_later`, which returns
    whether its removal begins now. Returns how many sandboxes advanced.
    """
    cleared = 0
    for loose_end in find_loose_ends(deps.store.sandboxes.broken_or_stopping()):
        try:
            cleared += _clear(deps, loose_end, remove_later)
        except (errors.Temporary, errors.NotFound):
            continue  # it changed: the next pass tries again
    return cleared


def remove(deps: Deps, sandbox: Sandbox) -> None:
    """Remove the sandbox, and nudge the session that waits for its end.

    Blocks for as long as Docker does. Raises the errors of `claims.remove`.
    """
    claims.remove(deps, sandbox)
    if sandbox.session_id is not None:
        nudge(deps, deps.store.sessions.get(sandbox.session_id))


def remove_all_containers(deps: Deps, host: Host) -> int:
    """Remove every container of this installation on a host, with its network and its rules.

    For `spawnctl down`, when no worker and no loop runs any more. The store is not asked: sessions
    stay in it, and start again from their bundles after the next `spawnctl up`. Returns how many
    containers were removed. Raises errors.Temporary if one couldn't be, once the others are gone.
    """
    engine = deps.engines.for_host(host)
    removed = 0
    for _ in range(_SWEEPS_MAX):  # a start that was cut off may still make one
        containers = engine.containers()
        if not containers:
            break
        failures = []
        for container in containers:
            try:
                engine.remove(container.sandbox_id)
            except errors.Temporary as error:
                failures.append(error)
        if failures:
            raise failures[0]
        removed += len(containers)
    engine.dismantle()
    return removed


def mark_broken(deps: Deps, sandbox: Sandbox, reason: str, *, by_host: bool = False) -> None:
    """Mark a sandbox BROKEN, and have its session look at that.

    `by_host`: its app can't have ended it. Raises errors.StaleWrite, errors.NotFound.
    """
    broken = sandbox.transition(SandboxState.BROKEN, deps.clock.now(), reason)
    deps.store.sandboxes.save(replace(broken, ended_by_host=by_host), expected=sandbox.state)
    deps.events.routes_changed()
    wake_session(deps, sandbox)


def wake_session(deps: Deps, sandbox: Sandbox) -> None:
    """Make the session of a broken sandbox due, and nudge it.

    Raises errors.StaleWrite, errors.NotFound. The next pass then repeats this, because the sandbox
    is still Unnoticed.
    """
    if sandbox.session_id is None:
        return
    session = deps.store.sessions.get(sandbox.session_id)
    nudge(deps, deps.store.sessions.save(replace(session, due_at=deps.clock.now())))


def _mark_vanished(deps: Deps, vanished: Vanished) -> None:
    """Mark it BROKEN. The host is read again: it may have been away since the pass began."""
    sandbox = vanished.sandbox
    host = deps.store.hosts.get(sandbox.host_id)
    in_outage = is_explained_by_outage(host, sandbox, deps.clock.now())
    mark_broken(deps, sandbox, vanished.reason, by_host=vanished.by_host or in_outage)
    if not in_outage:
        _blame_host(deps, sandbox)


def _blame_host(deps: Deps, sandbox: Sandbox) -> None:
    owner: str = sandbox.id
    if sandbox.session_id is not None:
        owner = deps.store.sessions.get(sandbox.session_id).user_id
    host_losses.record(deps, sandbox, owner)


def is_running(engine: ports.Engine, sandbox_id: SandboxId) -> bool:
    """Whether the sandbox's container runs now.

    `diagnose` compares containers and sandboxes that were read one after the other. A container
    that started between the two reads seems to be missing.
    """
    return any(
        container.sandbox_id == sandbox_id and container.running
        for container in engine.containers()
    )


def _clear(deps: Deps, loose_end: LooseEnd, remove_later: Callable[[Sandbox], bool]) -> bool:
    sandbox = loose_end.sandbox
    if isinstance(loose_end, Unnoticed):
        wake_session(deps, sandbox)
        return False
    if sandbox.state is SandboxState.BROKEN:
        claims.retire(deps, sandbox, sandbox.reason)
        return True
    if sandbox.routed:
        return False  # the publisher has to confirm the withdrawal first
    return remove_later(sandbox)
