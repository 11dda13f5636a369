"""Passes over the hosts: links, admission, measuring, drains, fences, reconciling.

The daemon's loops call them. Hosts are worked on in parallel, but each host by only one pass of a
kind at a time. So a slow host delays no other host.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.services.agents import presence
from orchestrator.services.deps import Deps
from orchestrator.services.pool import host_life, reconcile
from orchestrator.slim import structlog

_THREADS = 16
_REFRESH_S = 10.0
_REFRESHES_PER_S = 20  # over all hosts: the larger the pool, the less often each host is measured
_ROUND = 10  # passes within which every host is compared at least once
_FENCES_TIMEOUT_S = 20.0
_CRASH_PAUSE_FIRST_S = 5.0
_CRASH_PAUSE_MAX_S = 300.0
_TIMEOUT_S = 2.0  # how long a pass waits for its hosts; slower work goes on in the background

log = structlog.get_logger()


@dataclass(kw_only=True)
class CrashPauses:
    """The hosts that are left alone for a while, because our work on them crashed.

    All passes of a daemon share one. So a host on which one kind of work crashes is not admitted
    again meanwhile, and keeps its reason.
    """

    monotonic: Callable[[], float] = time.monotonic
    _crashes: dict[HostId, int] = field(default_factory=dict)  # in a row
    _until: dict[HostId, float] = field(default_factory=dict)

    def begin(self, host_id: HostId) -> float:
        """Count a crash. Returns for how many seconds the host is left alone now."""
        now = self.monotonic()
        is_in_a_row = now - self._until.get(host_id, now) < _CRASH_PAUSE_MAX_S
        crashes = self._crashes.get(host_id, 0) + 1 if is_in_a_row else 1
        pause_s = min(_CRASH_PAUSE_MAX_S, _CRASH_PAUSE_FIRST_S * 2.0 ** min(crashes - 1, 10))
        self._crashes[host_id], self._until[host_id] = crashes, now + pause_s
        return pause_s

    def is_paused(self, host_id: HostId) -> bool:
        return self._until.get(host_id, 0.0) > self.monotonic()


@dataclass(kw_only=True)
class HostTasks:
    """Runs one kind of work on many hosts, in threads. Skips a host that is still busy.

    A host is responsible for what it answers: whatever its work raises, no other host and no pass
    is affected.
    """

    threads: Executor = field(
        default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="hosts")
    )
    pauses: CrashPauses = field(default_factory=CrashPauses)
    # Takes a host whose work crashed out of placement, with the reason.
    suspect: Callable[[Host, str], None] = lambda _host, _reason: None
    _busy: set[HostId] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self, hosts: Sequence[Host], work: Callable[[Host], str], timeout_s: float = _TIMEOUT_S
    ) -> str:
        """Run `work` on all hosts, and return the summaries that arrived within `timeout_s`.

        A Temporary error of a host is logged and dropped: the links pass finds out whether that
        host answers at all. Any other error makes the host SUSPECT and pauses all work on it.
        """
        awake = [host for host in hosts if not self.pauses.is_paused(host.id)]
        started = [(host, self._start(host, work)) for host in awake]
        running = {future: host for host, future in started if future is not None}
        finished, _ = wait(running, timeout=timeout_s)
        summaries = [(running[future].name, future.result()) for future in finished]
        return "; ".join(f"{name}: {summary}" for name, summary in sorted(summaries) if summary)

    def _start(self, host: Host, work: Callable[[Host], str]) -> Future[str] | None:
        with self._lock:
            if host.id in self._busy:
                return None
            self._busy.add(host.id)
        return self.threads.submit(self._run_one, host, work)

    def _run_one(self, host: Host, work: Callable[[Host], str]) -> str:
        try:
            return work(host)
        except (errors.Temporary, errors.NotFound) as error:
            log.warning("host_task_failed", host=host.name, code=error.code, error=str(error))
        except Exception as error:  # a loop that must survive: other hosts depend on it
            pause_s = self.pauses.begin(host.id)
            log.exception("host_task_crashed", host=host.name, retry_in_s=pause_s)
            self._suspect(host, f"our work on it failed: {type(error).__name__}: {error!s:.150}")
        finally:
            with self._lock:
                self._busy.discard(host.id)
        return ""

    def _suspect(self, host: Host, reason: str) -> None:
        try:
            self.suspect(host, reason)
        except (errors.Temporary, errors.NotFound) as error:
            # The store is away, or the host has left. After the pause its work is tried again.
            log.warning("host_suspect_failed", host=host.name, error=str(error))


class HostPasses:
    """The passes that work on hosts as such. One per daemon."""

    def __init__(
        self,
        deps: Deps,
        fleet: ports.Fleet,
        images: ports.ImagePushes,
        on_change: Callable[[Sequence[Host]], None] = lambda _hosts: None,
        threads: Executor | None = None,
        pauses: CrashPauses | None = None,
    ) -> None:
        """`on_change` gets all hosts whenever one of them has changed: it writes the inventory.

        `pauses` is shared with the Reconciler.
        """
        self._deps = deps
        self._fleet = fleet
        self._images = images
        self._on_change = on_change
        workers = threads or ThreadPoolExecutor(_THREADS, thread_name_prefix="hosts")
        make_tasks = functools.partial(
            HostTasks,
            threads=workers,
            pauses=pauses or CrashPauses(),
            suspect=functools.partial(host_life.set_aside, deps),
        )
        self._admissions = make_tasks()
        self._refreshes = make_tasks()
        self._fences = make_tasks()
        self._drains = make_tasks()
        self._refreshed_at: dict[HostId, datetime] = {}
        self._published: Sequence[Host] = ()  # the hosts that `on_change` got last

    def update_links(self) -> str:
        """Connect to all hosts, record the state of their links, admit the hosts that answer."""
        before = self._deps.store.hosts.list()
        self._fleet.set_hosts(before)
        self._update_sockets()
        after = [self._record_link_state(host) for host in before]
        self._images.ensure([host for host in after if self._lacks_image(host)])
        waiting = [host for host in after if self._can_be_admitted(host)]
        self._admissions.run(waiting, self._admit, timeout_s=0)
        if self._published != after:
            self._publish(after)
        changes = (
            f"{new.name}: {old.state} -> {new.state} {new.reason}".rstrip()
            for old, new in zip(before, after, strict=True)
            if old.state is not new.state
        )
        return "; ".join(changes)

    def _update_sockets(self) -> None:
        """Keep an agent socket for every living sandbox on a host over SSH.

        What the links have is read first: a row is committed before its socket is offered.
        """
        offered = self._fleet.sandboxes()
        living = self._deps.store.sandboxes.living()
        self._fleet.set_sandboxes(living, ended=set(offered) - living.keys())

    def _publish(self, hosts: Sequence[Host]) -> None:
        """Hand on the hosts. On a full disk the next pass tries again: the links come first."""
        try:
            self._on_change(hosts)
        except errors.StorageUnavailable as error:
            log.warning("inventory_not_written", code=error.code, error=str(error))
        else:
            self._published = hosts

    def refresh(self) -> str:
        """Measure the hosts that are UP, each every few seconds."""
        now = self._deps.clock.now()
        hosts = self._reachable_hosts()
        interval = timedelta(seconds=max(_REFRESH_S, len(hosts) / _REFRESHES_PER_S))
        self._refreshed_at = {
            host.id: self._refreshed_at.get(host.id, host.created_at) for host in hosts
        }
        due = [host for host in hosts if now - self._refreshed_at[host.id] >= interval]
        self._refreshed_at.update({host.id: now for host in due})
        return self._refreshes.run(due, self._refresh)

    def drain(self) -> str:
        """Bring the hosts that drain or leave one step further."""
        hosts = self._deps.store.hosts.list()
        draining = [host for host in hosts if host.drain is not Drain.NONE]
        return self._drains.run(draining, self._drain)

    def check_fences(self, warn: Callable[[Sequence[str]], None]) -> str:
        """Restore networks and egress rules that somebody flushed.

        `warn` gets all that could not be restored, on all hosts, in each pass.
        """
        by_host: dict[str, Sequence[str]] = {}

        def prepare(host: Host) -> str:
            by_host[host.name] = self._deps.engines.for_host(host).prepare()
            return ""

        self._fences.run(self._reachable_hosts(), prepare, timeout_s=_FENCES_TIMEOUT_S)
        warnings = [f"{name}: {warning}" for name in sorted(by_host) for warning in by_host[name]]
        try:
            warn(warnings)
        except errors.StorageUnavailable as error:
            log.warning("warnings_not_written", code=error.code, error=str(error))
        return "; ".join(warnings)

    def _reachable_hosts(self) -> Sequence[Host]:
        """The hosts that are UP and answer right now."""
        hosts = self._deps.store.hosts.list()
        return [host for host in hosts if host.state is HostState.UP and self._answers(host)]

    def _answers(self, host: Host) -> bool:
        link = self._fleet.link_state(host)
        return link is not None and link.up

    def _record_link_state(self, host: Host) -> Host:
        link = self._fleet.link_state(host)
        return host if link is None else host_life.record_link_state(self._deps, host, link)

    def _can_be_admitted(self, host: Host) -> bool:
        if host.state not in {HostState.JOINING, HostState.SUSPECT} or host.drain is Drain.LEAVE:
            return False
        return self._answers(host)

    def _lacks_image(self, host: Host) -> bool:
        """Whether today's image has to be streamed to this host."""
        return host.is_remote and self._answers(host) and host.image != self._deps.image()

    def _admit(self, host: Host) -> str:
        admitted = host_life.admit(self._deps, self._fleet, host)
        if admitted.state is HostState.UP and host.state is not HostState.UP:
            log.info("host_admitted", host=host.name, image=admitted.image)
        return ""

    def _drain(self, host: Host) -> str:
        if host.drain is Drain.LEAVE:
            has_left = host_life.continue_removal(self._deps, self._fleet, host)
            return "has left" if has_left else ""
        touched = host_life.continue_drain(self._deps, host)
        return str(touched) if touched else ""

    def _refresh(self, host: Host) -> str:
        host_life.refresh(self._deps, self._fleet, host)
        return ""


class Reconciler:
    """Compares hosts with the store.

    A host whose containers changed is compared at once. All hosts take turns, so that a difference
    that no event told is found within _ROUND passes.
    """

    def __init__(
        self,
        deps: Deps,
        fleet: ports.Fleet,
        threads: Executor | None = None,
        pauses: CrashPauses | None = None,
    ) -> None:
        self._deps = deps
        self._fleet = fleet
        self._listener_watch = presence.ListenerWatch(since=deps.clock.now())
        self._tasks = HostTasks(
            threads=threads or ThreadPoolExecutor(_THREADS, thread_name_prefix="reconcile"),
            pauses=pauses or CrashPauses(),
            suspect=functools.partial(host_life.set_aside, deps),
        )
        self._turn = 0
        self._due: set[HostId] = set()  # hosts that no comparison has begun on since they changed

    def run(self) -> str:
        """One pass. Returns a summary for the log."""
        self._look()
        self._due.update(self._fleet.take_changed())
        hosts = self._deps.store.hosts.list()
        in_turn = set(_share([host.id for host in hosts], self._turn % _ROUND))
        self._turn += 1
        due = [host for host in hosts if host.id in self._due or host.id in in_turn]
        return self._tasks.run(due, self._compare)

    def _look(self) -> None:
        before = self._listener_watch.silence
        self._listener_watch.look(self._deps)
        silence = self._listener_watch.silence
        if silence and not before:
            total = silence.total
            log.error("agents_fell_silent", overdue=total.overdue, agents=total.agents)
        elif before and not silence:
            log.warning("agents_heard_again", agents=silence.total.agents)

    def _compare(self, host: Host) -> str:
        self._due.discard(host.id)
        containers = self._fleet.containers(host)
        if containers is None:
            return ""  # unreachable isn't unhealthy; the links pass reports it
        try:
            hearing = self._listener_watch.hearing_of(host)
            result = reconcile.reconcile(self._deps, host, containers, hearing)
        except errors.Temporary:
            self._due.add(host.id)
            raise
        if result.uncertain:
            self._due.add(host.id)
        if not (result.orphans or result.broken):
            return ""
        return f"orphans={result.orphans} broken={result.broken}"


def _share(host_ids: Sequence[HostId], turn: int) -> Iterator[HostId]:
    """The hosts whose turn it is, in rounds of _ROUND passes."""
    return (host_id for index, host_id in enumerate(host_ids) if index % _ROUND == turn)
