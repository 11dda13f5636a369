"""The life of a host: reached, admitted, measured, lost, removed. drains.py empties it before.

Called by the daemon's loops. Each function is one pass over one host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.pool import host_facts
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState, assess
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims, hosts, reconcile

_SEEN_EVERY_S = 10.0  # how often `seen_at` of a host that answers is written


def record_link_state(deps: Deps, host: Host, link: LinkState) -> Host:
    """Record what a host's link says of it, and return the host as it is now.

    A host that becomes LOST takes its sandboxes with it: READY sessions start again elsewhere from
    their bundles, the others start over.
    """
    try:
        return _record_link_state(deps, host, link)
    except (errors.NotFound, errors.IllegalTransition):
        return host  # it was removed or admitted since it was read: the next pass looks again


def _record_link_state(deps: Deps, host: Host, link: LinkState) -> Host:
    now = deps.clock.now()
    assessed = assess(host, link, now)
    if assessed.state is HostState.LOST and host.state is not HostState.LOST:
        return declare_lost(deps, host, link.reason)
    if assessed == host:
        return host
    if link.code and link.code not in host.reason:
        hosts.audit(deps, "daemon", link.code, host, link.reason)

    def change(current: Host) -> Host:
        # An operator may have changed the host meanwhile, so the stored one is assessed again.
        if current.state is not host.state:
            return current
        return assess(current, link, now)

    written = deps.store.hosts.change(host.id, change)
    if written.state is not host.state:
        deps.events.hosts_changed()
    return written


def record_seen(deps: Deps, hosts: Sequence[Host]) -> None:
    """Record that these hosts answer, of those for which that wasn't just done."""
    now = deps.clock.now()
    outdated = [host.id for host in hosts if _is_outdated(host.seen_at, now)]
    if outdated:
        deps.store.hosts.seen(outdated, now)


def set_aside(deps: Deps, host: Host, reason: str) -> None:
    """Take a host out of placement because our work on it crashed, or give a SUSPECT one the
    reason. Its apps keep running."""
    now = deps.clock.now()

    def suspect(current: Host) -> Host:
        if current.state is HostState.LOST:
            return current
        return current.transition(HostState.SUSPECT, now, reason)

    deps.store.hosts.change(host.id, suspect)
    deps.events.hosts_changed()


def declare_lost(deps: Deps, host: Host, reason: str) -> Host:
    """Declare a host LOST, mark its sandboxes BROKEN, and wake their sessions."""
    sandboxes = deps.store.hosts.lose(host.id, deps.clock.now(), reason)
    detail = f"{len(sandboxes)} sandboxes; {reason}"
    hosts.audit(deps, "daemon", "host_lost", host, detail[:200])
    deps.events.routes_changed()
    for sandbox in sandboxes:
        try:
            reconcile.wake_session(deps, sandbox)
        except (errors.StaleWrite, errors.NotFound):
            continue  # `reconcile.clear_loose_ends` finds it BROKEN and wakes its session
    return deps.store.hosts.get(host.id)


def admit(deps: Deps, fleet: ports.Fleet, host: Host) -> Host:
    """Prepare a host that answers for placements, step by step, until it is UP.

    Containers of an earlier generation are removed: a host that returns must not serve apps that
    have moved. A container is started to see that this works, and what it sees. If a step fails,
    the host's reason says which one.
    """
    engine = deps.engines.for_host(host)
    try:
        image = _find_image(deps, engine, host)
        sweep(deps, host, engine.containers())
        warnings = engine.prepare()
        if warnings and host.is_remote:
            raise errors.HostUnfit("; ".join(warnings), code="fences_missing")
        _check_sight(fleet, engine, host, image)
        facts = engine.describe()
        shortage = find_shortage(deps, fleet, host, facts["root"])
    except errors.StaleWrite:
        raise  # somebody else decides about it now
    except errors.SpawnError as error:
        return _record_unfit(deps, host, error)
    now = deps.clock.now()

    def change(current: Host) -> Host:
        # Only the host that was prepared. One that was lost and came back meanwhile has to be
        # swept again, and one that was told to leave stays out.
        is_same = current.generation == host.generation and current.state is host.state
        if not is_same or current.drain is Drain.LEAVE:
            return current
        up = current.transition(HostState.UP, now, "")
        # Whatever kept its engine from changing CPU limits may have been mended meanwhile.
        return replace(
            up,
            image=image,
            shortage=shortage,
            cpus=facts["cpus"],
            changes_cpus=current.changes_cpus or None,
            seen_at=now,
        )

    admitted = deps.store.hosts.change(host.id, change)
    deps.events.hosts_changed()
    return admitted


def sweep(deps: Deps, host: Host, containers: Sequence[Container]) -> int:
    """Remove the containers that aren't of the host's present generation; returns how many."""
    live = {
        sandbox.id
        for sandbox in deps.store.sandboxes.list(host_id=host.id)
        if sandbox.generation == host.generation
    }
    stale = [container for container in containers if container.sandbox_id not in live]
    engine = deps.engines.for_host(host)
    for container in stale:
        engine.remove(container.sandbox_id)
    return len(stale)


def refresh(deps: Deps, fleet: ports.Fleet, host: Host) -> None:
    """Measure what changes on a host that is UP: its free disk, memory and CPUs, and its images.

    Raises errors.Temporary.
    """
    engine = deps.engines.for_host(host)
    try:
        image = _find_image(deps, engine, host)
    except errors.HostUnfit as error:
        claims.mark_suspect(deps, host.id, str(error))
        _record_unfit(deps, host, error)
        return
    facts = engine.describe()
    shortage, cpus = find_shortage(deps, fleet, host, facts["root"]), facts["cpus"]
    engine.prune_images(keep={image, deps.image()})
    if (image, shortage, cpus) != (host.image, host.shortage, host.cpus):
        deps.store.hosts.change(
            host.id, lambda current: replace(current, image=image, shortage=shortage, cpus=cpus)
        )
        deps.events.hosts_changed()


def find_shortage(deps: Deps, fleet: ports.Fleet, host: Host, folder: str) -> str:
    """Which resource is too short for more sandboxes, for people; "" if none is.

    `folder` is its engine's own. Raises errors.Temporary.
    """
    # On a machine with an odd df or without /proc nothing is measured: that is no shortage.
    argv = ("sh", "-c", 'df -Pk -- "$0"; cat /proc/meminfo', folder)
    output = fleet.run(host, argv).output
    measured = (
        ("disk", host_facts.free_disk_bytes(output), deps.policy.disk_floor_bytes),
        ("memory", host_facts.free_memory_bytes(output), deps.policy.memory_floor_bytes),
    )
    shortages = [
        f"{resource}: {free / 2**30:.1f} GiB free, of the {floor / 2**30:.1f} that it has to keep"
        for resource, free, floor in measured
        if free is not None and free < floor
    ]
    # Only what other programs hold is a shortage. Full of sandboxes, it has room when one ends.
    now = deps.clock.now()
    if host.ports_set_aside(now) and not deps.store.sandboxes.has_free_port(host, now):
        shortages.append(host.port_shortage(now))
    return "; ".join(shortages)


def continue_removal(deps: Deps, fleet: ports.Fleet, host: Host) -> bool:
    """Bring a host that leaves the pool one step further. True once it is deleted.

    Its sandboxes are declared lost. Its containers are removed if it still answers. Raises
    errors.Temporary.
    """
    if host.state is not HostState.LOST:
        if host.state is not HostState.SUSPECT:
            claims.mark_suspect(deps, host.id, "it leaves the pool")
        declare_lost(deps, host, "an operator removed it")
        return False
    if deps.store.sandboxes.list(host_id=host.id):
        return False
    link = fleet.link_state(host)
    if link is not None and link.up:
        engine = deps.engines.for_host(host)
        sweep(deps, host, engine.containers())
        engine.dismantle()
    deps.store.hosts.remove(host.id)
    deps.events.hosts_changed()
    return True


def _record_unfit(deps: Deps, host: Host, error: errors.SpawnError) -> Host:
    """Record why a host isn't UP. Forget an image that it has lost, so that it is sent again."""
    reason, is_image_gone = str(error), error.code == "image_missing"
    return deps.store.hosts.change(
        host.id,
        lambda current: replace(
            current, reason=reason, image="" if is_image_gone else current.image
        ),
    )


def _find_image(deps: Deps, engine: ports.Engine, host: Host) -> str:
    """Today's runtime image if the host has it, else the one that it had before.

    Raises errors.HostUnfit if it has neither: today's image is then on its way.
    """
    today = deps.image()
    for image in (today, host.image):
        if image and engine.image_present(image):
            return image
    if not today:
        raise errors.HostUnfit("no runtime image was built yet: run `spawnctl image build`")
    problem = "is on its way there" if host.is_remote else "is missing: run `spawnctl image build`"
    raise errors.HostUnfit(f"the runtime image {today} {problem}", code="image_missing")


def _check_sight(fleet: ports.Fleet, engine: ports.Engine, host: Host, image: str) -> None:
    """Raises errors.HostUnfit (folder_unseen) if sandboxes wouldn't find the agent socket.

    This starts a container. So a Docker that answers everything but starts nothing is found too.
    """
    with fleet.mark(host) as name:
        if engine.sees(image, host.agent_folder, name):
            return
    advice = (
        "install Docker from a package (apt-get install docker.io) in place of the snap"
        if host.is_remote
        else "let SPAWN_DOCKER_URL lead to an engine of this machine that is no snap, or set"
        " SPAWN_STATE_DIR to a folder that this one sees; `spawnctl doctor` tries it"
    )
    raise errors.HostUnfit(
        f"its Docker doesn't see our folder {host.agent_folder}: it comes from a snap, runs in a"
        f" container or virtual machine, or on another machine. To repair it, {advice}",
        code="folder_unseen",
    )


def _is_outdated(seen_at: datetime | None, now: datetime) -> bool:
    return seen_at is None or (now - seen_at).total_seconds() > _SEEN_EVERY_S
