"""Passes over the hosts: what the links say, admission, refreshes, drains, fences, reconciling.

Hosts are worked on side by side, each by one pass of a kind at a time: one that is slow to answer
holds up nobody but itself.
"""

from __future__ import annotations

import threading
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
from orchestrator.services.pool import host_life as service
from orchestrator.services.pool import reconcile
from orchestrator.slim import structlog

_THREADS = 16
_REFRESH_S = 10.0
_REFRESHES_PER_S = 20  # the more hosts, the less often each is asked
_ROUND = 10  # passes in which every host is compared at least once
_FENCES_S = 20.0
_PATIENCE_S = 2.0  # for what one pass asks of its hosts; who takes longer goes on beside it

log = structlog.get_logger()


@dataclass(kw_only=True)
class SideBySide:
    """Work on hosts in threads; a host that is still worked on is left alone."""

    threads: Executor = field(
        default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="hosts")
    )
    _busy: set[HostId] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _died: BaseException | None = None  # of what nobody waited for

    def each(
        self, hosts: Sequence[Host], work: Callable[[Host], str], patience_s: float = _PATIENCE_S
    ) -> str:
        """Do it for all of them; what they said in time, by name. A host that fails is logged: it
        is another pass's business to find out whether it answers at all. A bug is raised, if not
        by this pass then by the next."""
        if self._died is not None:
            raise self._died
        began = [(one, self._begin(one, work)) for one in hosts]
        running = {future: one for one, future in began if future is not None}
        done, _ = wait(running, timeout=patience_s)
        said = [(running[future].name, future.result()) for future in done]
        return "; ".join(f"{name}: {text}" for name, text in sorted(said) if text)

    def _begin(self, host: Host, work: Callable[[Host], str]) -> Future[str] | None:
        with self._lock:
            if host.id in self._busy:
                return None
            self._busy.add(host.id)
        return self.threads.submit(self._finish, host, work)

    def _finish(self, host: Host, work: Callable[[Host], str]) -> str:
        try:
            return work(host)
        except (errors.Temporary, errors.NotFound) as error:
            log.warning("work on a host failed", host=host.name, code=error.code, error=str(error))
            return ""
        except BaseException as error:
            self._died = error
            raise
        finally:
            with self._lock:
                self._busy.discard(host.id)


class Hosts:
    """What is done with hosts as such. One per daemon."""

    def __init__(
        self,
        deps: Deps,
        fleet: ports.Fleet,
        images: ports.ImagePushes,
        changed: Callable[[Sequence[Host]], None] = lambda _hosts: None,
        threads: Executor | None = None,
    ) -> None:
        """`changed` is told of all hosts whenever one has changed: it writes the inventory."""
        self._deps = deps
        self._fleet = fleet
        self._images = images
        self._changed = changed
        workers = threads or ThreadPoolExecutor(_THREADS, thread_name_prefix="hosts")
        self._admissions = SideBySide(threads=workers)
        self._refreshes = SideBySide(threads=workers)
        self._fences = SideBySide(threads=workers)
        self._drains = SideBySide(threads=workers)
        self._refreshed: dict[HostId, datetime] = {}
        self._told: Sequence[Host] = ()

    def look(self) -> str:
        """Be linked to all hosts, write down what the links say, admit those that answer."""
        hosts = self._deps.store.hosts.list()
        self._fleet.keep(hosts)
        seen = [self._look_at(one) for one in hosts]
        self._images.ensure([one for one in seen if self._lacks_image(one)])
        waiting = [one for one in seen if self._may_be_admitted(one)]
        self._admissions.each(waiting, self._admit, patience_s=0)
        if self._told != seen:
            self._changed(seen)
            self._told = seen
        changes = (
            f"{after.name}: {before.state} -> {after.state} {after.reason}".rstrip()
            for before, after in zip(hosts, seen, strict=True)
            if before.state is not after.state
        )
        return "; ".join(changes)

    def refresh(self) -> str:
        """Measure the hosts that are UP, each every few seconds."""
        now = self._deps.clock.now()
        hosts = self._working()
        every = timedelta(seconds=max(_REFRESH_S, len(hosts) / _REFRESHES_PER_S))
        due = [one for one in hosts if now - self._refreshed.get(one.id, one.created_at) >= every]
        self._refreshed = {one.id: self._refreshed.get(one.id, one.created_at) for one in hosts}
        self._refreshed.update({one.id: now for one in due})
        return self._refreshes.each(due, self._refresh)

    def drain(self) -> str:
        """Bring the hosts that are to be emptied a step further."""
        drained = [one for one in self._deps.store.hosts.list() if one.drain is not Drain.NONE]
        return self._drains.each(drained, self._drain)

    def fence(self, warn: Callable[[Sequence[str]], None]) -> str:
        """See to it that networks and egress rules stand, whoever flushed them."""
        lacking: dict[str, Sequence[str]] = {}

        def check(host: Host) -> str:
            lacking[host.name] = self._deps.engines.of(host).prepare()
            return ""

        self._fences.each(self._working(), check, patience_s=_FENCES_S)
        said = [f"{name}: {one}" for name in sorted(lacking) for one in lacking[name]]
        warn(said)
        return "; ".join(said)

    def _working(self) -> Sequence[Host]:
        """Those that are UP and answer just now."""
        up = [one for one in self._deps.store.hosts.list() if one.state is HostState.UP]
        return [one for one in up if self._answers(one)]

    def _answers(self, host: Host) -> bool:
        reach = self._fleet.reach(host)
        return reach is not None and reach.up

    def _look_at(self, host: Host) -> Host:
        reach = self._fleet.reach(host)
        return host if reach is None else service.look(self._deps, host, reach)

    def _may_be_admitted(self, host: Host) -> bool:
        if host.state not in {HostState.JOINING, HostState.SUSPECT} or host.drain is Drain.LEAVE:
            return False
        return self._answers(host)

    def _lacks_image(self, host: Host) -> bool:
        """Whether today's image has to be streamed there."""
        return host.remote and self._answers(host) and host.image != self._deps.image()

    def _admit(self, host: Host) -> str:
        after = service.admit(self._deps, self._fleet, host)
        if after.state is HostState.UP and host.state is not HostState.UP:
            log.info("a host is up", host=host.name, image=after.image)
        return ""

    def _drain(self, host: Host) -> str:
        if host.drain is Drain.LEAVE:
            return "has left" if service.leave(self._deps, self._fleet, host) else ""
        touched = service.empty_drained(self._deps, host)
        return str(touched) if touched else ""

    def _refresh(self, host: Host) -> str:
        service.refresh(self._deps, self._fleet, host)
        return ""


class Reconciler:
    """Compares hosts with the store: those whose containers changed at once, and all of them in
    turn, so that what no event told is found within some passes."""

    def __init__(self, deps: Deps, fleet: ports.Fleet, threads: Executor | None = None) -> None:
        self._deps = deps
        self._fleet = fleet
        self._ears = presence.Ears(since=deps.clock.now())
        self._work = SideBySide(
            threads=threads or ThreadPoolExecutor(_THREADS, thread_name_prefix="reconcile")
        )
        self._turn = 0
        self._due: set[HostId] = set()  # until a comparison has begun after the change

    def run(self) -> str:
        heard_since = self._ears.heard_since(self._deps)
        self._due.update(self._fleet.take_changed())
        hosts = self._deps.store.hosts.list()
        in_turn = set(_slice([one.id for one in hosts], self._turn % _ROUND))
        self._turn += 1
        due = [one for one in hosts if one.id in self._due or one.id in in_turn]
        return self._work.each(due, lambda one: self._compare(one, heard_since))

    def _compare(self, host: Host, heard_since: datetime) -> str:
        self._due.discard(host.id)
        containers = self._fleet.containers(host)
        if containers is None:
            return ""  # unreachable isn't unhealthy; `links` says so where people look
        try:
            done = reconcile.reconcile(self._deps, host, containers, heard_since)
        except errors.Temporary:
            self._due.add(host.id)
            raise
        if done.unsure:
            self._due.add(host.id)
        if not (done.orphans or done.broken):
            return ""
        return f"orphans={done.orphans} broken={done.broken}"


def _slice(ids: Sequence[HostId], turn: int) -> Iterator[HostId]:
    """The share of all hosts that it is the turn of, in rounds of _ROUND."""
    return (one for index, one in enumerate(ids) if index % _ROUND == turn)
