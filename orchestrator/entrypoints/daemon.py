"""spawn-daemon: holds the links to the hosts and runs the loops. Exactly one is leader."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace

from orchestrator import bootstrap, config, observability
from orchestrator.adapters.hosts import inventory
from orchestrator.adapters.hosts.fleet import SshFleet
from orchestrator.adapters.hosts.push_processes import PushProcesses
from orchestrator.adapters.proxy.nginx import NginxProxy
from orchestrator.config import Settings
from orchestrator.domain import ids
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_fields import default_slots
from orchestrator.entrypoints import leader_engines
from orchestrator.entrypoints.lease import Lease
from orchestrator.loops import passes
from orchestrator.loops.host_passes import Hosts, Reconciler
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.supervisor import LoopSupervisor
from orchestrator.services.deps import Deps
from orchestrator.slim import structlog

LOCAL_HOST = "local"
_FALLBACK_MEMORY_BYTES = 2 * 1024**3

log = structlog.get_logger()


def main() -> None:
    """Lead, link to the hosts, run the loops, and give the lease back at the end."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "daemon")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    fleet = leader_engines.fleet(settings)
    docker = leader_engines.docker(settings, fleet)
    deps = bootstrap.build(settings, docker)
    lease = Lease(deps, stop)
    if not lease.acquire():
        return
    try:
        _local_host(deps, settings)
        with fleet:
            lead(deps, settings, fleet, lease)
    finally:
        lease.release()
        docker.close()
        deps.store.close()


def lead(deps: Deps, settings: Settings, fleet: SshFleet, lease: Lease) -> None:
    """Run the loops until told to stop, until one dies, or until the lease is lost."""
    pushes = PushProcesses()
    hosts = Hosts(
        deps, fleet, pushes, changed=lambda known: inventory.write(settings.places.inventory, known)
    )
    loops = LoopSupervisor(
        [
            *passes.all_loops(
                deps,
                NginxProxy(bootstrap.nginx_settings(settings)),
                hosts,
                Reconciler(deps, fleet),
                warn=functools.partial(_warn, settings),
            ),
            LoopSpec(name="gauges", every_s=2.0, run=lambda: _post_gauges(deps, fleet)),
        ],
        deps.events,
    )
    fleet.on_change = functools.partial(loops.wake, passes.FLEET)
    try:
        loops.run(until_stopped=lambda: lease.keep(also=loops.stopping.is_set))
    finally:
        pushes.stop()


def _post_gauges(deps: Deps, fleet: SshFleet) -> str:
    fleet.check()  # a link that died of a bug takes this process down
    deps.board.post(fleet.gauges())
    return ""


def _warn(settings: Settings, warnings: Sequence[str]) -> None:
    """Keep them where the banner of `spawnctl up` finds them. That the file is there says that the
    fences were looked at."""
    draft = settings.places.state_dir / "warnings.new"
    draft.write_text("".join(f"{one}\n" for one in warnings), "utf-8")
    draft.replace(settings.places.state_dir / "warnings")


def _local_host(deps: Deps, settings: Settings) -> None:
    """Make this machine a host, or bring its row up to date with the settings."""
    known = deps.store.hosts.by_name(LOCAL_HOST)
    now = deps.clock.now()
    if known is None and not settings.pool.local_host:
        return
    before = known or Host(
        id=ids.new_host_id(),
        name=LOCAL_HOST,
        docker_url=settings.places.docker_url,
        publish_address=settings.pool.publish_address,
        agent_folder=str(settings.places.agent_folder),
        state=HostState.JOINING,
        slots=0,
        created_at=now,
        state_since=now,
    )
    deps.store.hosts.put(
        replace(
            before,
            docker_url=settings.places.docker_url,
            publish_address=settings.pool.publish_address,
            agent_folder=str(settings.places.agent_folder),
            slots=settings.pool.slots or _measured_slots(),
            # Not UP before it was admitted again: `down` took its network and its fences away.
            state=HostState.SUSPECT if known else HostState.JOINING,
            state_since=now,
            reason="the daemon is starting",
            # Switched off it empties itself, and stays until then.
            drain=before.drain if settings.pool.local_host else Drain.MOVE,
        )
    )


def _measured_slots() -> int:
    """From this machine's memory and CPUs, which the embedded engine shares."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = _FALLBACK_MEMORY_BYTES
    return default_slots(memory_bytes=memory, cpus=os.cpu_count() or 1)


if __name__ == "__main__":
    main()
