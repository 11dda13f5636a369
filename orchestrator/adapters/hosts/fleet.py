"""ports.Fleet: the daemon's links to all hosts, and its watches over their Docker.

All links and watches run in one event loop, in one thread. The rest of the daemon is synchronous
(ADR 0011); only here does it wait on many sockets at once. The loop's thread writes the views and
other threads read them. Each field is replaced as a whole, so no reader ever sees half a value.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from orchestrator.adapters.docker import egress, sockets
from orchestrator.adapters.docker.watch import DockerView, DockerWatch
from orchestrator.adapters.hosts import marks
from orchestrator.adapters.hosts.loop_thread import LoopThread
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool import agent_sockets
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.ports import Clock, CommandOutcome, LinkGauges
from orchestrator.slim import structlog

if TYPE_CHECKING:
    from orchestrator.adapters.ssh.link import Link, LinkView  # _load_links loads it

_CONCURRENT_CONNECTS = 10
_GRACE_S = 5.0  # after we begin to follow a host, no answer does not yet mean unreachable
_COMMAND_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 5.0
_STABLE_S = 60.0  # a link or watch that ran for this long starts again after the first pause
_CRASH_PAUSE_MAX_S = 60.0

_T = TypeVar("_T")

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """What the links need to know about this installation."""

    instance: str
    key: Path  # our private SSH key
    links: Path  # folder of the forwarded sockets, with one folder per host
    agent_folder: Path  # of our agent app's sockets, on this machine
    # Called before anything is changed; raises errors.TermOver if we must not act any more.
    check_term: Callable[[], None] = lambda: None


@dataclass(kw_only=True)
class _FollowedHost:
    """One host that we are linked to, or try to be."""

    host: Host
    watch: DockerWatch
    link: Link | None  # None for the engine of this machine
    followed_since: float  # of the monotonic clock
    tasks: tuple[asyncio.Task[None], ...] = ()


class SshFleet:
    """The links to all hosts. Use it as a context manager: at its end, thread and links end."""

    def __init__(self, settings: FleetSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.on_reach: Callable[[], None] = lambda: None  # the loop's thread calls both
        self.on_end: Callable[[Sequence[SandboxId]], None] = lambda _: None
        self._followed: dict[HostId, _FollowedHost] = {}
        self._changed: set[HostId] = set()  # their containers or their links
        self._changed_links: set[HostId] = set()
        self._changed_lock = threading.Lock()
        self._gate = asyncio.Semaphore(_CONCURRENT_CONNECTS)
        self._loop = LoopThread("fleet")

    def __enter__(self) -> SshFleet:
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        # 1. The links, each of which removes its socket, and the streams on them. 2. The loop.
        # 3. Its thread.
        self._loop.call(self._unfollow_all(), _STOP_TIMEOUT_S)
        self._loop.stop(_STOP_TIMEOUT_S)

    # --- ports.Fleet ------------------------------------------------------------------------------

    def set_hosts(self, hosts: Sequence[Host]) -> None:
        if any(host.is_remote for host in hosts):
            _load_links()  # here: the loop must not stand still for as long as that takes
        self._loop.call(self._follow_exactly(hosts), _STOP_TIMEOUT_S)

    def sandboxes(self, host_ids: Collection[HostId]) -> Collection[SandboxId]:
        hosts = [self._followed.get(host_id) for host_id in host_ids]
        links = [followed.link for followed in hosts if followed and followed.link]
        return frozenset().union(*(list(link.sockets.wanted) for link in links))

    def set_sandboxes(
        self,
        host_ids: Collection[HostId],
        living: Mapping[SandboxId, HostId],
        ended: Collection[SandboxId],
    ) -> None:
        self._loop.call(self._follow_sandboxes(host_ids, living, ended), _STOP_TIMEOUT_S)

    def link_state(self, host: Host) -> LinkState | None:
        followed = self._followed.get(host.id)
        if followed is None:
            return None
        views: list[LinkView | DockerView] = [followed.watch.view]
        if followed.link is not None:
            views.insert(0, followed.link.view)
        down = next((view for view in views if not view.up), None)
        if down is None:
            return LinkState(up=True, since=self._time_of(max(view.since for view in views)))
        in_grace = time.monotonic() - followed.followed_since < _GRACE_S
        if in_grace and not down.has_outcome:
            return None
        return LinkState(
            up=False,
            since=self._time_of(down.since),
            reason=down.reason,
            code=getattr(down, "code", ""),
        )

    def _time_of(self, monotonic_s: float) -> datetime:
        """The application's time at that moment of the monotonic clock."""
        return self._clock.now() - timedelta(seconds=time.monotonic() - monotonic_s)

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        self._settings.check_term()
        if not host.is_remote:
            return egress.run_locally(argv)
        result = self.on_link(host, lambda link: link.run_command(tuple(argv), _COMMAND_TIMEOUT_S))
        return CommandOutcome(code=result.code, output=result.output)

    def mark(self, host: Host) -> AbstractContextManager[str]:
        return marks.make(host, lambda argv: self.run(host, argv))

    def containers(self, host: Host) -> Sequence[Container] | None:
        followed = self._followed.get(host.id)
        state = self.link_state(host)
        return followed.watch.view.containers if followed and state and state.up else None

    def take_changed(self) -> Collection[HostId]:
        with self._changed_lock:
            changed, self._changed = self._changed, set()
        return changed

    def take_changed_links(self) -> Collection[HostId]:
        with self._changed_lock:
            changed, self._changed_links = self._changed_links, set()
        return changed

    # --- beside the port --------------------------------------------------------------------------

    def sockets_of(self, host: Host) -> HostSockets:
        """Return what an engine needs to offer and withdraw agent sockets on that host."""
        return HostSockets(self, host)

    def our_address(self, host: Host) -> str:
        """Return our address as that host sees it; "" while it is unknown."""
        followed = self._followed.get(host.id)
        return followed.link.view.our_address if followed and followed.link else ""

    def last_sign(self) -> float:
        """When the event loop of the links last ran, by the monotonic clock."""
        return self._loop.last_sign()

    def gauges(self) -> Sequence[LinkGauges]:
        """Return the state of each link, for people and metrics."""
        return [
            LinkGauges(
                host=followed.host.name,
                up=followed.link.view.up,
                docker=followed.watch.view.up,
                channels=followed.link.channels,
                rtt_s=followed.link.view.rtt_s,
                reconnects=max(0, followed.link.view.connects - 1),
                refusals=dict(followed.link.refusals),
            )
            for followed in list(self._followed.values())
            if followed.link is not None
        ]

    def on_link(self, host: Host, work: Callable[[Link], Coroutine[object, object, _T]]) -> _T:
        """Do something over the link to a host. Raises errors.LinkDown, errors.Temporary."""
        followed = self._followed.get(host.id)
        if followed is None or followed.link is None:
            raise errors.LinkDown(f"there is no link to {host.name}")
        return self._loop.call(work(followed.link), _COMMAND_TIMEOUT_S + 5)

    # --- in the loop's thread ---------------------------------------------------------------------

    async def _follow_exactly(self, hosts: Sequence[Host]) -> None:
        wanted = {host.id: host for host in hosts}
        for host_id, followed in list(self._followed.items()):
            if host_id not in wanted or _is_reached_differently(followed.host, wanted[host_id]):
                await self._unfollow(host_id)
        for host in hosts:
            if host.id not in self._followed:
                self._follow(host)

    async def _follow_sandboxes(
        self,
        host_ids: Collection[HostId],
        living: Mapping[SandboxId, HostId],
        ended: Collection[SandboxId],
    ) -> None:
        by_host: defaultdict[HostId, list[SandboxId]] = defaultdict(list)
        for sandbox_id, host_id in living.items():
            by_host[host_id].append(sandbox_id)
        for host_id, followed in self._followed.items():
            if followed.link is None:
                continue
            if host_id in host_ids:
                followed.link.follow_sandboxes(by_host[host_id], ended)
            else:
                followed.link.retry_sockets()

    def _follow(self, host: Host) -> None:
        settings = self._settings
        url = sockets.docker_url(settings.links, host)
        followed = _FollowedHost(
            host=host,
            watch=DockerWatch(
                url.removeprefix("unix://"),
                settings.instance,
                lambda: self._report_change(host.id),
                lambda ended: self._report_events(host.id, ended),
            ),
            link=self._make_link(host, url) if host.is_remote else None,
            followed_since=time.monotonic(),
        )
        runners: list[DockerWatch | Link] = [followed.watch]
        if followed.link is None:
            followed.watch.resume()
        else:
            runners.append(followed.link)
        followed.tasks = tuple(
            asyncio.create_task(_keep_running(host, runner)) for runner in runners
        )
        self._followed[host.id] = followed

    def _make_link(self, host: Host, url: str) -> Link:
        links = _load_links()
        target = links.LinkTarget(
            name=host.name,
            address=host.address,
            pinned=host.host_key,
            key=self._settings.key,
            local_socket=Path(url.removeprefix("unix://")),
            local_agent_folder=self._settings.agent_folder,
            agent_folder=host.agent_folder,
            check_term=self._settings.check_term,
        )
        link: Link = links.Link(target, self._gate, lambda: self._on_link_change(host.id))
        return link

    def _on_link_change(self, host_id: HostId) -> None:
        followed = self._followed.get(host_id)
        if followed is not None and followed.link is not None:
            if followed.link.view.up:
                followed.watch.resume()
            else:
                followed.watch.pause()
        self._report_change(host_id)

    async def _unfollow(self, host_id: HostId) -> None:
        followed = self._followed.pop(host_id)
        for task in followed.tasks:
            task.cancel()
        await asyncio.gather(*followed.tasks, return_exceptions=True)

    async def _unfollow_all(self) -> None:
        for host_id in list(self._followed):
            await self._unfollow(host_id)
        streams = asyncio.all_tasks() - {asyncio.current_task()}
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    def _report_change(self, host_id: HostId) -> None:
        with self._changed_lock:
            self._changed.add(host_id)
            self._changed_links.add(host_id)
        self.on_reach()

    def _report_events(self, host_id: HostId, ended: Sequence[SandboxId]) -> None:
        """A start wakes nobody: the next pass compares its host."""
        with self._changed_lock:
            self._changed.add(host_id)
        self.on_end(ended)


async def _keep_running(host: Host, runner: DockerWatch | Link) -> None:
    """Run a link or a watch again and again, whatever error ends it.

    What a host does to us, it does to itself alone: it counts as not answering, with the
    reason, and we come back to it after a growing pause.
    """
    crashes = 0
    while True:
        started_at = time.monotonic()
        try:
            await runner.run_forever()
        except errors.TermOver:
            return  # it says nothing about the host, and our process is about to end
        except Exception as error:  # a loop that must survive: other hosts depend on this one
            log.exception("host_task_crashed", host=host.name, task=type(runner).__name__)
            runner.fail(f"our {type(runner).__name__} crashed on it: {error!r:.120}")
        crashes = 0 if time.monotonic() - started_at > _STABLE_S else crashes + 1
        await asyncio.sleep(min(_CRASH_PAUSE_MAX_S, 2.0 ** min(crashes, 10)))


@dataclass(frozen=True)
class HostSockets:
    """The agent sockets of one host, as its engine uses them.

    On this machine the agents' process binds the sockets, and removes them with their folders.
    """

    fleet: SshFleet
    host: Host

    def offer(self, sandbox_id: SandboxId) -> None:
        """Make a sandbox's agent folder. Over SSH also its socket.

        Raises errors.EngineUnavailable, errors.StorageUnavailable, errors.TermOver.
        """
        if not self.host.is_remote:
            with errors.storage("make the folder of an agent socket"):
                folder = Path(agent_sockets.folder_of(self.host.agent_folder, sandbox_id))
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                folder.chmod(0o755)
            return
        try:
            self.fleet.on_link(self.host, lambda link: link.offer_socket(sandbox_id))
        except errors.TermOver:
            raise  # it says nothing about the host
        except errors.Temporary as error:
            raise errors.EngineUnavailable(
                f"no agent socket on {self.host.name}: {error}"
            ) from error

    def withdraw(self, sandbox_id: SandboxId) -> None:
        """Remove a sandbox's agent socket and folder. What can't be reached is removed later."""
        if self.host.is_remote:
            with contextlib.suppress(errors.Temporary):
                self.fleet.on_link(self.host, lambda link: link.withdraw_socket(sandbox_id))


def _load_links() -> ModuleType:
    """Load the links, and with them the SSH library: 14 MB that only hosts over SSH need."""
    return importlib.import_module("orchestrator.adapters.ssh.link")


def _is_reached_differently(before: Host, after: Host) -> bool:
    """Return whether a change of the host's record calls for a new link."""
    return (before.docker_url, before.host_key, before.agent_folder) != (
        after.docker_url,
        after.host_key,
        after.agent_folder,
    )
