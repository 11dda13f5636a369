"""Links to hosts that tests can cut: ports.Fleet and ports.ImagePushes, in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.ports import CommandOutcome, Engines
from tests.fakes.samples import NOW

_GIB = 1024**3
REACHABLE = LinkState(up=True, since=NOW)


def df_and_meminfo(*, disk_bytes: int = 20 * _GIB, memory_bytes: int = 4 * _GIB) -> str:
    """What a host prints when the daemon measures its free disk and memory."""
    return (
        "Filesystem     1024-blocks     Used Available Capacity Mounted on\n"
        f"/dev/vda1         41152736 10240000 {disk_bytes // 1024:>9}      40% /\n"
        "MemTotal:        8145236 kB\n"
        f"MemAvailable:    {memory_bytes // 1024} kB\n"
    )


class FleetInMemory:
    """Links to hosts that all answer, unless a test says otherwise."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self.hosts: Sequence[Host] = ()  # of the last `set_hosts`
        self.link_states: dict[HostId, LinkState | None] = {}  # of hosts that aren't just REACHABLE
        self.measured: dict[HostId, str] = {}  # output of hosts that are short of something
        self.commands: list[tuple[str, tuple[str, ...]]] = []  # a host's name, and its argv
        self.changed: set[HostId] = set()
        self.changed_links: set[HostId] = set()
        self.offered: set[SandboxId] = set()  # sandboxes that have an agent socket
        # What Docker's events told, of hosts that must not be asked.
        self.containers_of: dict[HostId, Sequence[Container]] = {}

    def set_hosts(self, hosts: Sequence[Host]) -> None:
        self.hosts = hosts

    def sandboxes(self, host_ids: Collection[HostId]) -> Collection[SandboxId]:
        return self.offered if host_ids else ()

    def set_sandboxes(
        self,
        host_ids: Collection[HostId],
        living: Mapping[SandboxId, HostId],
        ended: Collection[SandboxId],
    ) -> None:
        self.offered = (self.offered | living.keys()) - set(ended)

    def link_state(self, host: Host) -> LinkState | None:
        return self.link_states.get(host.id, REACHABLE)

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        link = self.link_state(host)
        if link is None or not link.up:
            raise errors.LinkDown(f"no connection to {host.name}")
        self.commands.append((host.name, tuple(argv)))
        return CommandOutcome(code=0, output=self.measured.get(host.id, df_and_meminfo()))

    @contextlib.contextmanager
    def mark(self, host: Host) -> Iterator[str]:
        yield "mark"

    def containers(self, host: Host) -> Sequence[Container] | None:
        link = self.link_state(host)
        if link is None or not link.up:
            return None
        if host.id in self.containers_of:
            return self.containers_of[host.id]
        return self._engines.for_host(host).containers()

    def take_changed(self) -> Collection[HostId]:
        changed, self.changed = self.changed, set()
        return changed

    def take_changed_links(self) -> Collection[HostId]:
        changed, self.changed_links = self.changed_links, set()
        return changed


class ImagePushesInMemory:
    """Records the requests, and pushes nothing."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []  # the hosts' names of each call

    def ensure(self, hosts: Sequence[Host]) -> None:
        self.requests.append([host.name for host in hosts])
