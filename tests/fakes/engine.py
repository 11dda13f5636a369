"""Docker engines that tests can break: ports.Engine and ports.Engines, in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.published_ports import Endpoint
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.ports import Engine, SandboxSpec
from tests.fakes.samples import IMAGE


class EngineInMemory:
    """A working engine: containers are entries of a dict, and start at once."""

    def __init__(self) -> None:
        self.containers_by_sandbox: dict[SandboxId, Container] = {}
        self.cpus: dict[str, float] = {}  # the limit of each container, by its id
        self.specs: list[SandboxSpec] = []  # of every start, in order
        self.removed: list[SandboxId] = []  # of every remove, in order
        self.images = {IMAGE}
        self.warnings: list[str] = []  # what `prepare` returns
        self.prepare_count = 0
        self.dismantled = False
        self.is_blind = False  # it sees other files than we
        self.unpublished: set[SandboxId] = set()  # they answer at their own address only
        self.description: dict[str, Any] = {
            "version": "in memory",
            "root": "/var/lib/docker",
            "cpus": 2,
        }

    def start(self, spec: SandboxSpec) -> str:
        self.specs.append(spec)
        existing = self.containers_by_sandbox.get(spec.sandbox_id)
        if existing is not None and existing.running:
            return existing.id
        self.add(spec.sandbox_id)
        container = self.containers_by_sandbox[spec.sandbox_id]
        self.cpus[container.id] = spec.cpus
        return container.id

    def limit_cpus(self, container_id: str, cpus: float) -> None:
        if container_id not in {item.id for item in self.containers_by_sandbox.values()}:
            raise errors.NotFound(f"there is no container {container_id}")
        self.cpus[container_id] = cpus

    def remove(self, sandbox_id: SandboxId) -> None:
        self.removed.append(sandbox_id)
        self.containers_by_sandbox.pop(sandbox_id, None)

    def containers(self) -> Sequence[Container]:
        return list(self.containers_by_sandbox.values())

    def check_open(self) -> None: ...

    def find_unpublished(self, published: Mapping[SandboxId, Endpoint]) -> Collection[SandboxId]:
        return self.unpublished & published.keys()

    def image_present(self, image: str) -> bool:
        return image in self.images

    def prepare(self) -> Sequence[str]:
        self.prepare_count += 1
        return self.warnings

    def sees(self, image: str, folder: str, name: str) -> bool:
        return not self.is_blind

    def dismantle(self) -> None:
        self.dismantled = not self.containers_by_sandbox

    def describe(self) -> dict[str, Any]:
        return self.description

    def prune_images(self, keep: Collection[str]) -> int:
        old = self.images - set(keep)
        self.images -= old
        return len(old)

    def close(self) -> None:
        """Nothing to close."""

    def add(self, sandbox_id: SandboxId, *, running: bool = True) -> None:
        """Add a container that the product did not start."""
        self.containers_by_sandbox[sandbox_id] = Container(
            id=f"container-of-{sandbox_id}", sandbox_id=sandbox_id, running=running
        )

    def crash(self, sandbox_id: SandboxId) -> None:
        """Let a container exit by itself."""
        self.containers_by_sandbox[sandbox_id] = replace(
            self.containers_by_sandbox[sandbox_id],
            running=False,
            exited=True,
            exit_note="exit code 137",
        )


class EngineThatIsDown(EngineInMemory):
    """Does not answer, as long as `down` is set."""

    down = True

    def start(self, spec: SandboxSpec) -> str:
        self._check_up()
        return super().start(spec)

    def remove(self, sandbox_id: SandboxId) -> None:
        self._check_up()
        super().remove(sandbox_id)

    def containers(self) -> Sequence[Container]:
        self._check_up()
        return super().containers()

    def check_open(self) -> None:
        self._check_up()

    def image_present(self, image: str) -> bool:
        self._check_up()
        return super().image_present(image)

    def prepare(self) -> Sequence[str]:
        self._check_up()
        return super().prepare()

    def sees(self, image: str, folder: str, name: str) -> bool:
        self._check_up()
        return super().sees(image, folder, name)

    def describe(self) -> dict[str, Any]:
        self._check_up()
        return super().describe()

    def prune_images(self, keep: Collection[str]) -> int:
        self._check_up()
        return super().prune_images(keep)

    def _check_up(self) -> None:
        if self.down:
            raise errors.EngineUnavailable("the engine does not answer")


class EngineThatEnds(EngineInMemory):
    """Takes no new connections any more, and answers on those that it has."""

    def check_open(self) -> None:
        raise errors.EngineUnavailable("connection refused")


class EngineThatRefuses(EngineInMemory):
    """Refuses the first `times` starts, with the error `code`."""

    def __init__(self, code: str = "create_failed", *, times: int = 1_000_000) -> None:
        super().__init__()
        self._code = code
        self._times = times

    def start(self, spec: SandboxSpec) -> str:
        if self._times > 0:
            self._times -= 1
            raise errors.SandboxRefused(f"Docker refused: {self._code}", code=self._code)
        return super().start(spec)


class EngineWithFixedLimits(EngineInMemory):
    """Its runtime can't change the limits of what runs, as with gVisor, while `is_fixed`."""

    is_fixed = True

    def limit_cpus(self, container_id: str, cpus: float) -> None:
        if self.is_fixed:
            raise errors.SandboxRefused("runsc: unknown command", code="cpu_limit_refused")
        super().limit_cpus(container_id, cpus)


class EngineWithTakenPorts(EngineInMemory):
    """Other programs hold the ports in `taken` on its host."""

    def __init__(self, taken: Collection[int] = ()) -> None:
        super().__init__()
        self.taken = set(taken)
        self.tried: list[int] = []  # the port of every start, in order

    def start(self, spec: SandboxSpec) -> str:
        self.tried.append(spec.port)
        if spec.port in self.taken:
            raise errors.SandboxRefused("port is already allocated", code="port_taken")
        return super().start(spec)


class EngineThatHangs(EngineInMemory):
    """Answers nothing about the sandboxes in `stuck` until `released`. Needs real threads.

    A call that hangs first counts in `hanging`, so that a test can wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stuck: set[SandboxId] = set()
        self.released = threading.Event()
        self.hanging = threading.Semaphore(0)

    def start(self, spec: SandboxSpec) -> str:
        self._hang(spec.sandbox_id)
        return super().start(spec)

    def remove(self, sandbox_id: SandboxId) -> None:
        self._hang(sandbox_id)
        super().remove(sandbox_id)

    def _hang(self, sandbox_id: SandboxId) -> None:
        if sandbox_id in self.stuck and not self.released.is_set():
            self.hanging.release()
            self.released.wait()


class EngineWithStaleListing(EngineInMemory):
    """Its next listing is out of date: `meanwhile` runs after the listing is read."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile: Callable[[], None] | None = meanwhile

    def containers(self) -> Sequence[Container]:
        listing = super().containers()
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return listing


class EnginesByHost:
    """One engine for all hosts, except for the hosts in `special`."""

    def __init__(self, default: Engine) -> None:
        self.default = default
        self.special: dict[HostId, Engine] = {}
        self.kept: frozenset[HostId] = frozenset()  # what the last `keep` got

    def keep(self, hosts: Sequence[Host]) -> None:
        self.kept = frozenset(host.id for host in hosts)

    def for_host(self, host: Host) -> Engine:
        return self.special.get(host.id, self.default)

    def close(self) -> None:
        """Nothing to close."""
