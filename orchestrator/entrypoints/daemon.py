"""The daemon: holds the links to the hosts and runs the loops. Exactly one daemon leads.

The supervisor starts it.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace

from orchestrator import bootstrap, config, observability
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts import inventory
from orchestrator.adapters.hosts.fleet import SshFleet
from orchestrator.adapters.hosts.push_processes import PushProcesses
from orchestrator.adapters.proxy.nginx import NginxProxy
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.config import Settings
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_fields import default_slots
from orchestrator.entrypoints import leader_engines
from orchestrator.entrypoints.leadership.lease import Lease
from orchestrator.entrypoints.liveness import exits
from orchestrator.entrypoints.liveness.daemon_watch import DaemonWatch
from orchestrator.loops import passes
from orchestrator.loops.cpu_limiter import CpuLimiter
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_book import HostBook
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.host_tasks import crash_pauses
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.loop_supervisor import LoopSupervisor
from orchestrator.loops.reconciler import Reconciler
from orchestrator.loops.stand_in import StandIn
from orchestrator.services.deps import Deps
from orchestrator.services.sessions.looks import look
from orchestrator.slim import structlog

LOCAL_HOST = "local"
_STARTS_END_S = 5.0  # at the end; one takes about half a second
_FALLBACK_MEMORY_BYTES = 2 * 1024**3

log = structlog.get_logger()


def main() -> None:
    """Take the lease, link to the hosts, run the loops, and release the lease at the end."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "daemon")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch = DaemonWatch(limit_s=settings.processes.pass_limit_s)
    watch.start()
    # The lease has a store of its own: it is written before our term, and never waits for the
    # connections that the loops hold.
    unfenced = bootstrap.build(settings, bootstrap.NoEngines())
    lease = Lease(unfenced, stop, state_dir=settings.places.state_dir)
    fleet = leader_engines.make_fleet(settings, lease.check)
    engines = leader_engines.make_engines(settings, fleet, lease.check)
    deps = replace(unfenced, engines=engines, store=bootstrap.open_store(settings, lease.check))
    try:
        if not lease.acquire():
            return
    except errors.Conflict as error:
        log.error("leads_elsewhere", code=error.code, error=str(error))
        sys.exit(exits.STANDBY)
    try:
        try:
            _update_local_host(deps, settings)
        except errors.Conflict as error:
            # Another host has its publish address. That is no reason to lead no host at all.
            log.error("local_host_refused", code=error.code, error=str(error))
        with fleet:
            watch.links_sign = fleet.last_sign
            lead(deps, settings, fleet, lease, watch)
            watch.links_sign = None
    finally:
        lease.release()
        engines.close()
        deps.store.close()
        unfenced.store.close()


def lead(deps: Deps, settings: Settings, fleet: SshFleet, lease: Lease, watch: DaemonWatch) -> None:
    """Run the loops until the process must stop, a loop dies, or the lease is lost."""
    pushes = PushProcesses(check_term=lease.check)
    clock = bootstrap.make_clock(settings)
    pauses = crash_pauses(deps.clock)
    calls = EngineCalls(deps)
    book = HostBook(deps)
    stand_in = StandIn(lambda session_id: look(deps, session_id))
    hosts = HostPasses(
        deps,
        fleet,
        pushes,
        on_change=lambda all_hosts: inventory.write(settings.places.inventory, all_hosts),
        pauses=pauses,
        book=book,
    )
    loops = LoopSupervisor(
        [
            *passes.loop_specs(
                deps,
                NginxProxy(bootstrap.nginx_settings(settings), lease),
                hosts,
                Reconciler(deps, fleet, calls, pauses, book=book),
                calls,
                CpuLimiter(deps, pauses),
                warn=StateFolder(settings.places.state_dir).write_warnings,
                on_due=stand_in.take,
            ),
            LoopSpec(name="gauges", every_s=2.0, rest_s=5.0, run=lambda: _post_gauges(deps, fleet)),
            LoopSpec(name="clock", every_s=1.0, run=lambda: _watch_clock(clock)),
        ],
        deps.events,
        lease.check,
        on_due=stand_in.take,
        stopping=lease.stop,
    )
    watch.loops = loops
    fleet.on_reach = functools.partial(loops.wake, passes.LINKS)
    fleet.on_end = functools.partial(_wake_for_ended, loops, calls)
    try:
        loops.run(until_stopped=lambda: keep_or_exit(lease))
    finally:
        calls.stop(_STARTS_END_S)
        stand_in.stop()
        pushes.stop()


def keep_or_exit(lease: Lease) -> None:
    """Wait until the loops must stop. End this process if another daemon may lead."""
    if not lease.keep():
        # At once: an orderly stop would end links and pushes, and a later leader has its own.
        os._exit(exits.TERM_OVER)


def _wake_for_ended(loops: LoopSupervisor, calls: EngineCalls, ended: Sequence[SandboxId]) -> None:
    """Have the hosts compared, if their containers didn't end by our hand."""
    if not all(map(calls.is_removing, ended)):
        loops.wake(passes.CONTAINERS)


def _post_gauges(deps: Deps, fleet: SshFleet) -> str:
    deps.board.post(fleet.gauges())
    return ""


def _watch_clock(clock: SystemClock) -> str:
    clock.look()
    return ""


def _update_local_host(deps: Deps, settings: Settings) -> None:
    """Make this machine a host, or update its row from the settings."""
    stored = deps.store.hosts.by_name(LOCAL_HOST)
    now = deps.clock.now()
    if stored is None and not settings.pool.local_host:
        return
    host = stored or Host(
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
            host,
            docker_url=settings.places.docker_url,
            publish_address=settings.pool.publish_address,
            agent_folder=str(settings.places.agent_folder),
            slots=settings.pool.slots or _slots_of_this_machine(),
            # Not UP until it is admitted again: `spawnctl down` removed its network and its fences.
            state=HostState.SUSPECT if stored else HostState.JOINING,
            state_since=now,
            reason="the daemon is starting",
            # Switched off in the settings, the host drains. Its row stays until it is empty.
            drain=host.drain if settings.pool.local_host else Drain.MOVE,
        )
    )


def _slots_of_this_machine() -> int:
    """The slots for this machine's memory and CPUs, which the embedded engine shares."""
    try:
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory_bytes = _FALLBACK_MEMORY_BYTES
    return default_slots(memory_bytes=memory_bytes, cpus=os.cpu_count() or 1)


if __name__ == "__main__":
    main()
