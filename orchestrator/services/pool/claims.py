"""The life of one sandbox: it is placed for a session, started, retired and removed.

Also counts what a session in the queue could claim. Called by converge, and by the services that
the daemon's loops run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator import ports
from orchestrator.contract.wire import Identity
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId, SessionId
from orchestrator.domain.pool import agent_sockets
from orchestrator.domain.pool.host import Host, HostKind, HostState
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions import rooms
from orchestrator.domain.sessions.rooms import Allotment, Demand, Turn, Waiting
from orchestrator.domain.sessions.session import Move, Session
from orchestrator.services.deps import Deps
from orchestrator.slim import structlog

REASON_MAX = 200  # characters
# Refusals for want of what each admission makes sure of. The host is admitted again before it gets
# another sandbox.
UNPREPARED = frozenset({"image_missing", "network_missing"})
# Refusals that cost a session no attempt: nobody's sandbox would have started there. A host with a
# full disk gets no sandbox until it was measured again, some seconds later.
OF_THE_HOST = UNPREPARED | {"port_taken", "disk_full"}
_QUEUE_MAX = 1000  # sessions that one pass of the nudge loop thinks about
_PORTS_PER_START = 10  # tried in a row; the next start goes on with the ports after these

log = structlog.get_logger()


def find_turn(store: ports.Store, session: Session, now: datetime) -> Turn:
    """Whether this session may claim now: the pool has enough for every session before it too.

    This keeps the position that we show honest. A newcomer never takes what an earlier session
    waits for. An earlier session that nothing in the pool would do for now takes nothing from it.
    """
    ahead = store.sessions.demand_ahead_of(session, now)
    if not ahead:
        return Turn(has_come=True)
    demand = demand_of(session)
    if any(each.is_choosy for each in (demand, *ahead)):
        allotment = Allotment(store.hosts.kinds())
        for each in ahead:
            allotment.take(each)
        return allotment.turn_of(demand)
    count = sum(each.count for each in ahead)
    return Turn(has_come=count_available(store, count + 1) > count)


def demand_of(session: Session) -> Demand:
    """What a session in the queue needs."""
    return Demand(wish=session.wish, cold=rooms.gets_no_warm(session.crashes))


def count_served(store: ports.Store, now: datetime) -> int:
    """How many sessions of the queue a refill has to leave room for."""
    demands = store.sessions.demand(now)
    if any(demand.is_choosy for demand in demands):
        return rooms.served(store.hosts.kinds(), demands)
    return sum(demand.count for demand in demands)


def choose_waiting(store: ports.Store, now: datetime) -> Sequence[SessionId]:
    """The sessions of the queue that a look is of use to now, in order: there is room for them, or
    no host can ever meet their wish."""
    queue = store.sessions.queue(now, _QUEUE_MAX)
    if any(waiting.demand.is_choosy for waiting in queue):
        useful = list(_find_useful(store.hosts.kinds(), queue))
    else:
        useful = list(queue[: count_available(store, len(queue))] if queue else ())
    return [waiting.id for waiting in useful if waiting.due_at <= now]


def _find_useful(kinds: Sequence[HostKind], queue: Sequence[Waiting]) -> Iterator[Waiting]:
    allotment = Allotment(kinds)
    for waiting in queue:
        wish = waiting.demand.wish
        if allotment.take(waiting.demand) or (wish and not any(kind.meets(wish) for kind in kinds)):
            yield waiting


def count_available(store: ports.Store, enough: int) -> int:
    """How many sessions could get a sandbox now: warm sandboxes, and free slots as far as sandboxes
    can be started in them.

    Stops counting at `enough`, so that the cost does not grow with the pool.
    """
    warm = min(enough, sum(store.sandboxes.warm_counts().values()))
    return warm if warm == enough else warm + store.hosts.free_slots(enough - warm)


def place(
    deps: Deps, session: Session, now: datetime, *, without: Collection[HostId] = ()
) -> Sandbox:
    """Commit the intent of a new sandbox for this session, and save the session with it.

    It is placed on none of the hosts in `without`. Raises errors.NoCapacity, errors.StaleWrite.
    """
    new = ports.NewSandbox(
        id=ids.new_sandbox_id(),
        session_id=session.id,
        slug=session.slug or ids.new_slug(),
        image=deps.image(),
        raised=deps.policy.cpus.can_differ,
        wish=session.wish,
        avoid=(*session.refused_by, *session.lost_on, *without),
    )
    placed = replace(session, sandbox_id=new.id, slug=new.slug)
    return deps.store.sandboxes.place_for(placed, new, now)


def place_successor(deps: Deps, session: Session, now: datetime) -> Sandbox:
    """Commit the intent of the sandbox that this session moves to.

    The successor has a slug of its own until the session's slug switches to it. Raises
    errors.NoCapacity, errors.StaleWrite.
    """
    new = ports.NewSandbox(
        id=ids.new_sandbox_id(),
        session_id=session.id,
        slug=ids.new_slug(),
        image=deps.image(),
        raised=deps.policy.cpus.can_differ,
        wish=session.wish,
        avoid=(*session.refused_by, *session.lost_on),
    )
    moving = replace(session, move=Move(sandbox_id=new.id))
    return deps.store.sandboxes.place_for(moving, new, now)


def has_room_elsewhere(deps: Deps, session: Session) -> bool:
    """Whether a host that it lost no sandbox on has a free slot, even if that is busy right now."""
    avoided = {*session.refused_by, *session.lost_on}
    return deps.store.hosts.any_accepts(session.wish, without=avoided, with_room=True)


def start(deps: Deps, sandbox: Sandbox) -> None:
    """Create and start the container of a committed intent. Blocks for as long as Docker does.

    If another program holds the sandbox's port, the next one is tried. Raises
    errors.EngineUnavailable, errors.SandboxRefused, errors.StaleWrite.
    """
    host = deps.store.hosts.get(sandbox.host_id)
    engine = deps.engines.for_host(host)
    for _ in range(_PORTS_PER_START):
        try:
            container_id = engine.start(_spec_of(deps, host, sandbox))
        except errors.SandboxRefused as refusal:
            if refusal.code != "port_taken":
                raise
            sandbox = _change_port(deps, host, sandbox)
        else:
            deps.store.sandboxes.set_container(sandbox.id, container_id)
            return
    raise errors.SandboxRefused(
        f"other programs hold {_PORTS_PER_START} ports in a row on {host.name}", code="port_taken"
    )


def _spec_of(deps: Deps, host: Host, sandbox: Sandbox) -> ports.SandboxSpec:
    limits = deps.policy.cpus
    identity = Identity(
        sandbox_id=sandbox.id,
        token=deps.tokens.for_sandbox(sandbox.id),
        slug=sandbox.slug,
        interpreters=deps.policy.warm_interpreters,
    )
    return ports.SandboxSpec(
        sandbox_id=sandbox.id,
        image=sandbox.image,
        publish_address=host.publish_address,
        port=sandbox.port,
        agent_folder=agent_sockets.folder_of(host.agent_folder, sandbox.id),
        identity=json.dumps(identity.as_json()),
        cpus=limits.at_start(host) if sandbox.raised and host.changes_cpus else limits.share,
    )


def _change_port(deps: Deps, host: Host, sandbox: Sandbox) -> Sandbox:
    """Give the sandbox another port. Raises errors.SandboxRefused if its host has none left."""
    now = deps.clock.now()
    changed = deps.store.sandboxes.change_port(sandbox, now)
    log.warning("port_set_aside", host=host.name, port=sandbox.port, sandbox=sandbox.id)
    if changed is None:
        shortage = deps.store.hosts.get(host.id).port_shortage(now)
        raise errors.SandboxRefused(f"{host.name} lacks {shortage}", code="port_taken")
    deps.events.routes_changed()
    return changed


def retire(deps: Deps, sandbox: Sandbox, reason: str) -> None:
    """Move a sandbox to STOPPING. The publisher then withdraws its route and confirms that.

    Raises errors.StaleWrite.
    """
    stopping = sandbox.transition(SandboxState.STOPPING, deps.clock.now(), reason)
    deps.store.sandboxes.save(stopping, expected=sandbox.state)
    deps.events.routes_changed()
    deps.events.inbox_changed(sandbox.id)


def retire_with(deps: Deps, session: Session, sandbox: Sandbox, reason: str) -> None:
    """Retire a sandbox, and save the session that it belongs to in the same transaction.

    Raises errors.StaleWrite.
    """
    stopping = sandbox.transition(SandboxState.STOPPING, deps.clock.now(), reason)
    deps.store.sandboxes.abandon(stopping, sandbox.state, session)
    deps.events.session_changed(session.id)
    deps.events.routes_changed()
    deps.events.inbox_changed(sandbox.id)


def abandon(deps: Deps, session: Session, sandbox: Sandbox, reason: str) -> None:
    """Take a sandbox and its slug from its session, and retire it. The clear loop removes it later.

    Port and slot stay taken until then, however long that is. `session` and the sandbox are saved
    in one transaction. So a sandbox that a move has given the session's URL to since this was
    decided is left alone. Raises errors.StaleWrite.
    """
    if sandbox.state is SandboxState.GONE:
        deps.store.sessions.save(session)
        return
    abandoned = replace(sandbox, session_id=None)
    if sandbox.state is not SandboxState.STOPPING:
        abandoned = abandoned.transition(
            SandboxState.STOPPING, deps.clock.now(), reason[:REASON_MAX]
        )
    deps.store.sandboxes.abandon(abandoned, sandbox.state, session)
    deps.events.routes_changed()
    deps.events.inbox_changed(sandbox.id)


def remove(deps: Deps, sandbox: Sandbox) -> None:
    """Remove the container, and give its slot and port back. Its route must be withdrawn first.

    The engine of a LOST host can't be asked. What is left on that host is removed before the host
    is UP again. Otherwise raises errors.EngineUnavailable and gives nothing back, because the
    container may still run. Raises errors.Conflict while the route is published.
    """
    if sandbox.routed:
        raise errors.Conflict(f"the route of {sandbox.id} is still published")
    host = deps.store.hosts.get(sandbox.host_id)
    if host.state is not HostState.LOST:
        deps.engines.for_host(host).remove(sandbox.id)
    gone = sandbox.transition(SandboxState.GONE, deps.clock.now())
    deps.store.sandboxes.save(gone, expected=SandboxState.STOPPING)
    deps.events.pool_changed()


def mark_suspect(deps: Deps, host_id: HostId, reason: str) -> None:
    """Take a host out of placement until the daemon admits it again."""
    now = deps.clock.now()

    def suspect(host: Host) -> Host:
        if host.state in {HostState.UP, HostState.JOINING}:
            return host.transition(HostState.SUSPECT, now, reason)
        return host

    deps.store.hosts.change(host_id, suspect)
    deps.events.hosts_changed()


def record_refusal(deps: Deps, host_id: HostId, refusal: errors.SandboxRefused) -> None:
    """Record a refusal that concerns the whole host, so that no other session is sent there."""
    if refusal.code in UNPREPARED:
        mark_suspect(deps, host_id, str(refusal))
    elif refusal.code == "disk_full":
        shortage = "its disk is full"
        deps.store.hosts.change(host_id, lambda host: replace(host, shortage=shortage))
