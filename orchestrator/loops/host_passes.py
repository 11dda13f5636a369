"""Passes over the hosts: links, admission, measuring, drains, fences.

The daemon's loops call them. No pass waits for a host: each begins work on the hosts that aren't
busy, and tells what has ended meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.loops.backoff import Backoff
from orchestrator.loops.bulkhead import Spawn
from orchestrator.loops.host_book import HostBook, Look, Turns
from orchestrator.loops.host_tasks import HostTasks, Work, crash_pauses
from orchestrator.services.deps import Deps
from orchestrator.services.pool import drains, host_life, host_losses
from orchestrator.services.pool.port_watch import PortWatch
from orchestrator.slim import structlog

_REFRESH_S = 10.0
_FENCES_S = 30.0
_PORT_QUESTIONS_S = 4.0
_HOSTS_PER_S = 20  # over all hosts: the larger the pool, the less often each is looked at

log = structlog.get_logger()


class HostPasses:
    """The passes that work on hosts as such. One per daemon."""

    def __init__(
        self,
        deps: Deps,
        fleet: ports.Fleet,
        images: ports.ImagePushes,
        on_change: Callable[[Sequence[Host]], None] = lambda _hosts: None,
        pauses: Backoff | None = None,
        spawn: Spawn | None = None,
        book: HostBook | None = None,
    ) -> None:
        """`on_change` gets all hosts whenever one of them has changed: it writes the inventory.

        `pauses` and `book` are shared with the Reconciler. `spawn` runs work on a host, by default
        in a thread.
        """
        self._deps = deps
        self._book = book or HostBook(deps)
        self._turns = Turns(passes=1, at_most=20)
        self._fleet = fleet
        self._images = images
        self._on_change = on_change
        self._ports = PortWatch(deps)
        make_tasks = functools.partial(
            HostTasks,
            deps.clock,
            pauses=pauses or crash_pauses(deps.clock),
            suspect=functools.partial(host_life.set_aside, deps),
            spawn=spawn,
        )
        self._admissions = make_tasks()
        self._drains = make_tasks()
        self._refreshes = _Rounds(make_tasks(), _REFRESH_S)
        self._fences = _Rounds(make_tasks(), _FENCES_S)
        self._port_questions = _Rounds(make_tasks(), _PORT_QUESTIONS_S)
        self._missing_fences: dict[HostId, Sequence[str]] = {}
        self._warnings: Sequence[str] | None = None  # what `warn` got last
        self._linked: set[HostId] = set()  # whose link was up when it was recorded last
        self._followed = self._published = 0  # versions of the book

    def update_links(self) -> str:
        """Connect to all hosts, record the state of their links, admit the hosts that answer."""
        look = self._book.look(turns=self._turns)
        self._follow(look)
        unlinked = look.hosts.keys() - self._linked
        due = {*look.read, *unlinked, *self._fleet.take_changed_links()}
        before = look.pick(due)
        self._update_sockets(before)
        after = [self._record_link_state(host) for host in before]
        host_life.record_seen(self._deps, [host for host in after if host.id in self._linked])
        look = self._book.note(after)
        self._images.ensure([host for host in after if self._lacks_image(host)])
        waiting = [host for host in after if self._can_be_admitted(host)]
        self._admissions.run(waiting, self._admit)
        if self._published != look.version:
            self._publish(look)
        changes = (
            f"{new.name}: {old.state} -> {new.state} {new.reason}".rstrip()
            for old, new in zip(before, after, strict=True)
            if old.state is not new.state
        )
        return "; ".join(changes)

    def _follow(self, look: Look) -> None:
        """Have links and engines for exactly these hosts."""
        if self._followed == look.version:
            return
        hosts = list(look.hosts.values())
        self._fleet.set_hosts(hosts)
        self._deps.engines.keep(hosts)
        self._linked &= look.hosts.keys()
        self._followed = look.version

    def _update_sockets(self, hosts: Sequence[Host]) -> None:
        """Keep an agent socket for every living sandbox on these hosts, if they are over SSH.

        Whoever starts or removes a sandbox offers or withdraws its socket: this finds what they
        couldn't. What the links have is read first: a row is committed before its socket is
        offered.
        """
        host_ids = [host.id for host in hosts if host.is_remote]
        offered = self._fleet.sandboxes(host_ids)
        living = self._deps.store.pool.living(host_ids)
        self._fleet.set_sandboxes(host_ids, living, ended=set(offered) - living.keys())

    def _publish(self, look: Look) -> None:
        """Hand on the hosts. On a full disk the next pass tries again: the links come first."""
        try:
            self._on_change(list(look.hosts.values()))
        except errors.StorageUnavailable as error:
            log.warning("inventory_not_written", code=error.code, error=str(error))
        else:
            self._published = look.version

    def refresh(self) -> str:
        """Measure the hosts that are UP, each every few seconds."""
        return self._refreshes.run(self._reachable_hosts(), self._refresh, self._deps.clock.now())

    def check_ports(self) -> str:
        """Look at the published ports of apps and warm sandboxes, each every few seconds. A host
        whose ports fail is asked which of them are dead."""
        looked = self._ports.look()
        failing = self._ports.failing_hosts()
        hosts = self._book.look(failing).pick(failing) if failing else ()
        now = self._deps.clock.now()
        reachable = [host for host in hosts if self._answers(host)]
        asked = self._port_questions.run(reachable, self._ports.ask, now)
        return "; ".join(filter(None, (looked, asked)))

    def drain(self) -> str:
        """Bring the hosts that drain or leave one step further."""
        hosts = self._book.look().hosts.values()
        draining = [host for host in hosts if host.drain is not Drain.NONE]
        return self._drains.run(draining, self._drain)

    def check_fences(self, warn: Callable[[Sequence[str]], None]) -> str:
        """Restore networks and egress rules that somebody flushed, on each host every 30 seconds.

        `warn` gets all that could not be restored, on all hosts, whenever that changes.
        """
        hosts = self._reachable_hosts()
        summary = self._fences.run(hosts, self._check_fences, self._deps.clock.now())
        self._forget_fences({host.id for host in hosts})
        missing = dict(self._missing_fences)
        warnings = [
            f"{host.name}: {warning}"
            for host in sorted(hosts, key=lambda host: host.name)
            for warning in missing.get(host.id, ())
        ]
        if warnings != self._warnings:
            self._warn(warnings, warn)
        return summary

    def _check_fences(self, host: Host) -> str:
        warnings = self._deps.engines.for_host(host).prepare()
        self._missing_fences[host.id] = warnings
        return "; ".join(warnings)

    def _forget_fences(self, kept: Collection[HostId]) -> None:
        """Forget what all other hosts lacked. A host that comes back is checked again at once."""
        for host_id in self._missing_fences.keys() - kept:
            self._missing_fences.pop(host_id, None)

    def _warn(self, warnings: Sequence[str], warn: Callable[[Sequence[str]], None]) -> None:
        """Hand on the warnings. On a full disk the next pass tries again."""
        try:
            warn(warnings)
        except errors.StorageUnavailable as error:
            log.warning("warnings_not_written", code=error.code, error=str(error))
        else:
            self._warnings = warnings

    def _reachable_hosts(self) -> Sequence[Host]:
        """The hosts that are UP and answer right now."""
        hosts = self._book.look().hosts.values()
        return [host for host in hosts if host.state is HostState.UP and self._answers(host)]

    def _answers(self, host: Host) -> bool:
        link = self._fleet.link_state(host)
        return link is not None and link.up

    def _record_link_state(self, host: Host) -> Host:
        link = self._fleet.link_state(host)
        if link is not None and link.up:
            self._linked.add(host.id)
        else:
            self._linked.discard(host.id)
        return host if link is None else host_life.record_link_state(self._deps, host, link)

    def _can_be_admitted(self, host: Host) -> bool:
        if host.state not in {HostState.JOINING, HostState.SUSPECT} or host.drain is Drain.LEAVE:
            return False
        if not self._answers(host) or self._ports.blames(host.id):
            return False
        return not host_losses.is_set_aside(self._deps, host)

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
        touched = drains.continue_drain(self._deps, host)
        return str(touched) if touched else ""

    def _refresh(self, host: Host) -> str:
        host_life.refresh(self._deps, self._fleet, host)
        return ""


class _Rounds:
    """Work that each host gets again and again, at an interval."""

    def __init__(self, tasks: HostTasks, every_s: float) -> None:
        self._tasks = tasks
        self._every_s = every_s
        self._begun_at: Mapping[HostId, datetime] = {}

    def run(self, hosts: Sequence[Host], work: Work, now: datetime) -> str:
        """Begin `work` on the hosts that are due. Returns what the work that has ended did."""
        interval = timedelta(seconds=max(self._every_s, len(hosts) / _HOSTS_PER_S))
        begun_at = {host.id: self._begun_at.get(host.id, now - interval) for host in hosts}
        for host in hosts:
            if now - begun_at[host.id] >= interval and self._tasks.offer(host, work):
                begun_at[host.id] = now
        self._begun_at = begun_at
        return self._tasks.take_summary()
