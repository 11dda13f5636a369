"""The life of a host, as its link tells it: seen, admitted, measured, lost, emptied, gone. Called
by the daemon's loops.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.pool import host, host_facts
from orchestrator.domain.pool.diagnosis import Container
from orchestrator.domain.pool.host import Drain, Host, HostState, Reach
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims, hosts, reconcile

_MOVES_AT_ONCE = 6  # of one host: its sessions must not take all the warm ones at a stroke
_SEEN_AGAIN_S = 10.0


def look(deps: Deps, known: Host, reach: Reach) -> Host:
    """Write down what a host's link says of it. A host that is LOST takes its sandboxes with it:
    READY sessions come back elsewhere from their bundles, the others start over."""
    try:
        return _look(deps, known, reach)
    except (errors.NotFound, errors.IllegalMove):
        return known  # it was removed, or admitted, since it was read: the next pass looks again


def _look(deps: Deps, known: Host, reach: Reach) -> Host:
    now = deps.clock.now()
    after = host.assess(known, reach, now)
    if after.state is HostState.LOST and known.state is not HostState.LOST:
        return lose(deps, known, reach.reason)
    if reach.up and _is_old(known, deps):
        after = replace(after, seen_at=now)
    if after == known:
        return known
    if reach.code and reach.code not in known.reason:
        hosts.note(deps, "daemon", reach.code, known, reach.reason)
    # The host may have been changed by an operator meanwhile: assess what it is by now.
    written = deps.store.hosts.change(
        known.id,
        lambda found: (
            replace(host.assess(found, reach, now), seen_at=after.seen_at)
            if found.state is known.state
            else found
        ),
    )
    if written.state is not known.state:
        deps.events.pool_changed()
    return written


def lose(deps: Deps, known: Host, reason: str) -> Host:
    """Declare a host lost, and have its sessions looked at."""
    boxes = deps.store.hosts.lose(known.id, deps.clock.now(), reason)
    hosts.note(deps, "daemon", "host_lost", known, f"{len(boxes)} sandboxes; {reason}"[:200])
    deps.events.routes_changed()
    for box in boxes:
        try:
            reconcile.make_due(deps, box)
        except (errors.StaleWrite, errors.NotFound):
            continue  # `pool.clear` finds it BROKEN and makes its session due
    return deps.store.hosts.get(known.id)


def admit(deps: Deps, fleet: ports.Fleet, known: Host) -> Host:
    """Make a host that answers fit for placements, step by step; UP at the end.

    What is stale there goes first: a host that returns must not serve what has moved. Raises
    errors.Temporary when a step fails; the host's reason says which one.
    """
    engine = deps.engines.of(known)
    try:
        image = _image_there(deps, engine, known)
        sweep(deps, known, engine.containers())
        lacking = engine.prepare()
        if lacking and known.remote:
            raise errors.HostUnfit("; ".join(lacking), code="fences_missing")
        shortage = measure(deps, fleet, known)
    except errors.SpawnError as error:
        return _unfit(deps, known, error)
    now = deps.clock.now()

    def up(found: Host) -> Host:
        # Only what was looked at: a host that was lost and came back meanwhile is another story,
        # and one that was told to leave stays out.
        same = found.generation == known.generation and found.state is known.state
        if not same or found.drain is Drain.LEAVE:
            return found
        return replace(
            found.transition(HostState.UP, now, ""), image=image, shortage=shortage, seen_at=now
        )

    after = deps.store.hosts.change(known.id, up)
    deps.events.pool_changed()
    return after


def sweep(deps: Deps, known: Host, containers: Sequence[Container]) -> int:
    """Remove what runs there and isn't of the host's present generation; how many."""
    live = {
        box.id
        for box in deps.store.sandboxes.list(host_id=known.id)
        if box.generation == known.generation
    }
    stale = [one for one in containers if one.sandbox_id not in live]
    engine = deps.engines.of(known)
    for container in stale:
        engine.remove(container.sandbox_id)
    return len(stale)


def refresh(deps: Deps, fleet: ports.Fleet, known: Host) -> None:
    """Look again at what changes on a host that is UP: room on its disk and in its memory, and
    which of our images it has. Raises errors.Temporary."""
    engine = deps.engines.of(known)
    try:
        image = _image_there(deps, engine, known)
    except errors.HostUnfit as error:
        claims.suspect(deps, known.id, str(error))
        _unfit(deps, known, error)
        return
    shortage = measure(deps, fleet, known)
    engine.prune_images(keep={image, deps.image()})
    if (image, shortage) != (known.image, known.shortage):
        deps.store.hosts.change(
            known.id, lambda found: replace(found, image=image, shortage=shortage)
        )
        deps.events.pool_changed()


def measure(deps: Deps, fleet: ports.Fleet, known: Host) -> str:
    """What a host is too short of to take more sandboxes, for people; "" when of nothing."""
    folder = deps.engines.of(known).describe()["root"]
    # A machine with an odd df or no /proc tells us nothing, and that is no shortage.
    said = fleet.run(known, ("sh", "-c", 'df -Pk -- "$0"; cat /proc/meminfo', str(folder))).output
    floors = (
        ("disk", host_facts.free_disk_bytes(said), deps.policy.disk_floor_bytes),
        ("memory", host_facts.free_memory_bytes(said), deps.policy.memory_floor_bytes),
    )
    short = [
        f"{what}: {free / 2**30:.1f} GiB free, of the {floor / 2**30:.1f} that it has to keep"
        for what, free, floor in floors
        if free is not None and free < floor
    ]
    return "; ".join(short)


def empty_drained(deps: Deps, known: Host) -> int:
    """One pass over a host that is being drained: its warm sandboxes go, and some of its READY
    sessions are looked at, so that they move. How many were touched."""
    touched = moving = 0
    for box in deps.store.sandboxes.list(host_id=known.id):
        if box.state is SandboxState.WARM:
            _unless_stale(functools.partial(claims.retire, deps, box, "its host is being drained"))
            touched += 1
        elif known.drain is Drain.MOVE and moving < _MOVES_AT_ONCE:
            found = _movable(deps, box)
            if found is not None:  # who can't move yet doesn't hold up those who can
                moving += 1
                touched += _ask_to_move(deps, found)
    return touched


def leave(deps: Deps, fleet: ports.Fleet, known: Host) -> bool:
    """One pass over a host that leaves: its sandboxes are lost to it, its containers removed if it
    answers, and then it is forgotten. True at the end. Raises errors.Temporary."""
    if known.state is not HostState.LOST:
        if known.state is not HostState.SUSPECT:
            claims.suspect(deps, known.id, "it leaves the pool")
        lose(deps, known, "an operator removed it")
        return False
    if deps.store.sandboxes.list(host_id=known.id):
        return False
    reach = fleet.reach(known)
    if reach is not None and reach.up:
        engine = deps.engines.of(known)
        sweep(deps, known, engine.containers())
        engine.dismantle()
    deps.store.hosts.remove(known.id)
    deps.events.pool_changed()
    return True


def _movable(deps: Deps, box: Sandbox) -> Session | None:
    """The session in a sandbox, if it can be started elsewhere: it runs and has a bundle."""
    if box.session_id is None:
        return None
    try:
        found = deps.store.sessions.get(box.session_id)
    except errors.NotFound:
        return None
    return found if found.state is SessionState.READY and found.bundle is not None else None


def _ask_to_move(deps: Deps, found: Session) -> int:
    now = deps.clock.now()
    # What looked for room in vain is due again within seconds; only what rests has to be woken.
    rests = (found.due_at - now).total_seconds() >= _SEEN_AGAIN_S
    if found.move is not None or not rests:
        return 0
    _unless_stale(lambda: nudge(deps, deps.store.sessions.save(replace(found, due_at=now))))
    return 1


def _unless_stale(write: Callable[[], object]) -> None:
    """Somebody else wrote first: the next pass looks again."""
    try:
        write()
    except errors.StaleWrite:
        return


def _unfit(deps: Deps, known: Host, error: errors.SpawnError) -> Host:
    """Say why a host isn't UP; of an image that is gone also forget that it had it, so that it is
    sent again."""
    why, gone = str(error), error.code == "image_missing"
    return deps.store.hosts.change(
        known.id,
        lambda found: replace(found, reason=why, image="" if gone else found.image),
    )


def _image_there(deps: Deps, engine: ports.Engine, known: Host) -> str:
    """Today's runtime image if the host has it, else the one that it had. Raises HostUnfit when it
    has neither: it is on its way then."""
    wanted = deps.image()
    for image in (wanted, known.image):
        if image and engine.image_present(image):
            return image
    if not wanted:
        raise errors.HostUnfit("no runtime image was built yet: run `spawnctl image build`")
    where = "is on its way there" if known.remote else "is missing: run `spawnctl image build`"
    raise errors.HostUnfit(f"the runtime image {wanted} {where}", code="image_missing")


def _is_old(known: Host, deps: Deps) -> bool:
    seen = known.seen_at
    return seen is None or (deps.clock.now() - seen).total_seconds() > _SEEN_AGAIN_S
