"""Links to hosts as tests want them: ports.Fleet and ports.ImagePushes, in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.diagnosis import Container
from orchestrator.domain.pool.host import Host, Reach
from orchestrator.ports import CommandOutcome, Engines
from tests.fakes.samples import NOW

_GIB = 1024**3
HERE = Reach(up=True, since=NOW)


def measures(*, disk_bytes: int = 20 * _GIB, memory_bytes: int = 4 * _GIB) -> str:
    """What a host answers that is asked for its free disk and memory."""
    return (
        "Filesystem     1024-blocks     Used Available Capacity Mounted on\n"
        f"/dev/vda1         41152736 10240000 {disk_bytes // 1024:>9}      40% /\n"
        "MemTotal:        8145236 kB\n"
        f"MemAvailable:    {memory_bytes // 1024} kB\n"
    )


class FleetInMemory:
    """Every host answers from the start; its containers are those of its engine."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self.kept: Sequence[Host] = ()  # by the last call
        self.reaches: dict[HostId, Reach | None] = {}  # of those that aren't just there
        self.measures: dict[HostId, str] = {}  # of those that aren't roomy
        self.ran: list[tuple[str, tuple[str, ...]]] = []  # host's name and command
        self.changed: set[HostId] = set()

    def keep(self, hosts: Sequence[Host]) -> None:
        self.kept = hosts

    def reach(self, host: Host) -> Reach | None:
        return self.reaches.get(host.id, HERE)

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        reach = self.reach(host)
        if reach is None or not reach.up:
            raise errors.LinkDown(f"no connection to {host.name}")
        self.ran.append((host.name, tuple(argv)))
        return CommandOutcome(code=0, output=self.measures.get(host.id, measures()))

    def containers(self, host: Host) -> Sequence[Container] | None:
        reach = self.reach(host)
        if reach is None or not reach.up:
            return None
        return self._engines.of(host).containers()

    def take_changed(self) -> Collection[HostId]:
        changed, self.changed = self.changed, set()
        return changed


class ImagePushesInMemory:
    """Keeps what was asked for, and pushes nothing."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []  # the hosts' names, call by call

    def ensure(self, hosts: Sequence[Host]) -> None:
        self.asked.append([host.name for host in hosts])
