"""The daemon's links and watches over all hosts: ports.Fleet. One event loop in one thread.

Everything else in the daemon is sync (ADR 0011); this is where it waits on many sockets. Views are
written by the loop's thread and read by others, field by field and never half-written.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from orchestrator.adapters.docker import egress, sockets
from orchestrator.adapters.docker.watch import DockerView, DockerWatch
from orchestrator.adapters.ssh.link import Link, LinkTarget, LinkView
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.diagnosis import Container
from orchestrator.domain.pool.host import Host, Reach
from orchestrator.ports import CommandOutcome, LinkGauges
from orchestrator.slim import structlog

_CONNECTS_AT_ONCE = 10
_SETTLING_S = 5.0  # after its start a host that hasn't answered yet isn't called unreachable
_RUN_S = 20.0
_STOP_S = 5.0

_T = TypeVar("_T")

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """What links need of this installation."""

    instance: str
    key: Path  # our private SSH key
    links: Path  # folder of the forwarded sockets, one folder per host
    agent_socket: Path


@dataclass(kw_only=True)
class _Followed:
    """One host that we are linked to, or try to be."""

    host: Host
    watch: DockerWatch
    link: Link | None  # None for the engine of this machine
    began: float
    tasks: tuple[asyncio.Task[None], ...] = ()


class SshFleet:
    """Use it as a context manager: the thread and all links end with it."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        # Called, in the loop's thread, when a host's reach or containers changed: mustn't block.
        self.on_change: Callable[[], None] = lambda: None
        self._followed: dict[HostId, _Followed] = {}
        self._changed: set[HostId] = set()
        self._lock = threading.Lock()
        self._gate = asyncio.Semaphore(_CONNECTS_AT_ONCE)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._died: BaseException | None = None

    def __enter__(self) -> SshFleet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # 1. The links, each of which takes its socket away, and what they carried; 2. the loop;
        # 3. its thread.
        self._call(self._unfollow_all(), _STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)

    # --- ports.Fleet ------------------------------------------------------------------------------

    def keep(self, hosts: Sequence[Host]) -> None:
        self._call(self._keep(hosts), _STOP_S)

    def reach(self, host: Host) -> Reach | None:
        found = self._followed.get(host.id)
        if found is None:
            return None
        views: list[LinkView | DockerView] = [found.watch.view]
        if found.link is not None:
            views.insert(0, found.link.view)
        down = next((view for view in views if not view.up), None)
        if down is None:
            return Reach(up=True, since=_moment(max(view.since for view in views)))
        settling = time.monotonic() - found.began < _SETTLING_S
        if settling and not down.tried:
            return None
        return Reach(
            up=False,
            since=_moment(down.since),
            reason=down.reason,
            code=getattr(down, "code", ""),
        )

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        found = self._followed.get(host.id)
        if found is None or found.link is None:
            if host.remote:
                raise errors.LinkDown(f"there is no link to {host.name}")
            return egress.run_here(argv)
        ran = self._call(found.link.run(tuple(argv), _RUN_S), _RUN_S + 5)
        return CommandOutcome(code=ran.code, output=ran.output)

    def containers(self, host: Host) -> Sequence[Container] | None:
        found = self._followed.get(host.id)
        reach = self.reach(host)
        return found.watch.view.containers if found and reach and reach.up else None

    def take_changed(self) -> Collection[HostId]:
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed

    # --- beside the port --------------------------------------------------------------------------

    def seen_from(self, host: Host) -> str:
        """Our address as that host sees it; "" while it isn't known."""
        found = self._followed.get(host.id)
        return found.link.view.seen_from if found is not None and found.link is not None else ""

    def check(self) -> None:
        """Raises what killed a link or a watch, if anything did."""
        if self._died is not None:
            raise self._died

    def gauges(self) -> Sequence[LinkGauges]:
        """How the links are, for people and metrics."""
        return [
            LinkGauges(
                host=one.host.name,
                up=one.link.view.up,
                docker=one.watch.view.up,
                channels=one.link.view.channels,
                rtt_s=one.link.view.rtt_s,
                reconnects=max(0, one.link.view.connects - 1),
            )
            for one in list(self._followed.values())
            if one.link is not None
        ]

    # --- in the loop's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _keep(self, hosts: Sequence[Host]) -> None:
        wanted = {host.id: host for host in hosts}
        for host_id, found in list(self._followed.items()):
            if host_id not in wanted or _moved(found.host, wanted[host_id]):
                await self._unfollow(host_id)
        for host in hosts:
            if host.id not in self._followed:
                self._follow(host)

    def _follow(self, host: Host) -> None:
        settings = self._settings
        url = sockets.docker_url(settings.links, host)
        followed = _Followed(
            host=host,
            watch=DockerWatch(
                url.removeprefix("unix://"),
                settings.instance,
                lambda _reach: self._say_changed(host.id),
            ),
            link=self._link(host, url) if host.remote else None,
            began=time.monotonic(),
        )
        lives = [followed.watch.live()]
        if followed.link is None:
            followed.watch.begin()
        else:
            lives.append(followed.link.live())
        followed.tasks = tuple(self._loop.create_task(one) for one in lives)
        for task in followed.tasks:
            task.add_done_callback(self._on_end)
        self._followed[host.id] = followed

    def _link(self, host: Host, url: str) -> Link:
        target = LinkTarget(
            name=host.name,
            address=host.address,
            pinned=host.host_key,
            key=self._settings.key,
            local_socket=Path(url.removeprefix("unix://")),
            agent_socket=self._settings.agent_socket,
            agent_folder=host.agent_folder,
        )
        return Link(target, self._gate, lambda: self._on_link(host.id))

    def _on_link(self, host_id: HostId) -> None:
        followed = self._followed.get(host_id)
        if followed is not None and followed.link is not None:
            if followed.link.view.up:
                followed.watch.begin()
            else:
                followed.watch.pause()
        self._say_changed(host_id)

    async def _unfollow(self, host_id: HostId) -> None:
        followed = self._followed.pop(host_id)
        for task in followed.tasks:
            task.cancel()
        await asyncio.gather(*followed.tasks, return_exceptions=True)

    async def _unfollow_all(self) -> None:
        for host_id in list(self._followed):
            await self._unfollow(host_id)
        carried = asyncio.all_tasks() - {asyncio.current_task()}
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A link that dies of a bug takes the process down, by `check`."""
        if not task.cancelled() and task.exception() is not None:
            self._died = task.exception()
            log.error("a link died", error=repr(self._died), exc_info=self._died)
            self.on_change()

    def _say_changed(self, host_id: HostId) -> None:
        with self._lock:
            self._changed.add(host_id)
        self.on_change()

    def _call(self, what: Coroutine[object, object, _T], within_s: float) -> _T:
        """Run it in the loop, from another thread. Raises Temporary when that takes too long."""
        future = asyncio.run_coroutine_threadsafe(what, self._loop)
        try:
            return future.result(within_s)
        except TimeoutError as late:
            future.cancel()
            raise errors.Temporary(
                f"the links did not answer within {within_s:g} s", code="links_busy"
            ) from late


def _moved(before: Host, after: Host) -> bool:
    """Whether a host is reached in another way than it was."""
    return (before.docker_url, before.host_key, before.agent_folder) != (
        after.docker_url,
        after.host_key,
        after.agent_folder,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
