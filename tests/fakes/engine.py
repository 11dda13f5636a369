"""Docker engines that tests can break: ports.Engine and ports.Engines, in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.diagnosis import Container
from orchestrator.domain.pool.host import Host
from orchestrator.ports import Engine, SandboxSpec
from tests.fakes.samples import IMAGE


class EngineInMemory:
    """A sound engine: containers are rows of a dict, and start at once."""

    def __init__(self) -> None:
        self.found: dict[SandboxId, Container] = {}
        self.specs: list[SandboxSpec] = []  # of every start, in order
        self.replaced: list[bool] = []  # its replace_stale
        self.removed: list[SandboxId] = []  # by every remove, in order
        self.images = {IMAGE}
        self.warnings: list[str] = []  # what its fences lack
        self.prepared = 0  # how often they were seen to
        self.dismantled = False
        self.description: dict[str, Any] = {"version": "in memory", "root": "/var/lib/docker"}

    def start(self, spec: SandboxSpec, *, replace_stale: bool) -> str:
        self.specs.append(spec)
        self.replaced.append(replace_stale)
        known = self.found.get(spec.sandbox_id)
        if known is not None and known.running:
            return known.id
        if known is not None and not replace_stale:
            raise errors.SandboxRefused("somebody is starting it", code="start_in_progress")
        self.add(spec.sandbox_id)
        return self.found[spec.sandbox_id].id

    def remove(self, sandbox_id: SandboxId) -> None:
        self.removed.append(sandbox_id)
        self.found.pop(sandbox_id, None)

    def containers(self) -> Sequence[Container]:
        return list(self.found.values())

    def image_present(self, image: str) -> bool:
        return image in self.images

    def prepare(self) -> Sequence[str]:
        self.prepared += 1
        return self.warnings

    def dismantle(self) -> None:
        self.dismantled = not self.found

    def describe(self) -> dict[str, Any]:
        return self.description

    def prune_images(self, keep: Collection[str]) -> int:
        old = self.images - set(keep)
        self.images -= old
        return len(old)

    def logs(self, sandbox_id: SandboxId, lines: int) -> str:
        return ""

    def close(self) -> None:
        """Nothing to close."""

    def add(self, sandbox_id: SandboxId, *, running: bool = True) -> None:
        """Make a container outside of the product's doing."""
        self.found[sandbox_id] = Container(
            id=f"container-of-{sandbox_id}", sandbox_id=sandbox_id, running=running
        )

    def crash(self, sandbox_id: SandboxId) -> None:
        """Let a container end by itself."""
        self.found[sandbox_id] = replace(
            self.found[sandbox_id], running=False, exited=True, exit_note="exit code 137"
        )


class EngineThatIsDown(EngineInMemory):
    """Answers nothing, as long as `down` is set."""

    down = True

    def start(self, spec: SandboxSpec, *, replace_stale: bool) -> str:
        self._answer()
        return super().start(spec, replace_stale=replace_stale)

    def remove(self, sandbox_id: SandboxId) -> None:
        self._answer()
        super().remove(sandbox_id)

    def containers(self) -> Sequence[Container]:
        self._answer()
        return super().containers()

    def image_present(self, image: str) -> bool:
        self._answer()
        return super().image_present(image)

    def prepare(self) -> Sequence[str]:
        self._answer()
        return super().prepare()

    def describe(self) -> dict[str, Any]:
        self._answer()
        return super().describe()

    def prune_images(self, keep: Collection[str]) -> int:
        self._answer()
        return super().prune_images(keep)

    def _answer(self) -> None:
        if self.down:
            raise errors.EngineUnavailable("the engine does not answer")


class EngineThatRefuses(EngineInMemory):
    """Starts nothing, for the reason `code`, as often as `times` says."""

    def __init__(self, code: str = "create_failed", *, times: int = 1_000_000) -> None:
        super().__init__()
        self._code = code
        self._times = times

    def start(self, spec: SandboxSpec, *, replace_stale: bool) -> str:
        if self._times > 0:
            self._times -= 1
            raise errors.SandboxRefused(f"Docker refused: {self._code}", code=self._code)
        return super().start(spec, replace_stale=replace_stale)


class EngineThatLooksAway(EngineInMemory):
    """Its next listing is old news: `meanwhile` happens after it was taken, before it is given."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile: Callable[[], None] | None = meanwhile

    def containers(self) -> Sequence[Container]:
        listed = super().containers()
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return listed


class EnginesByHost:
    """One engine for all hosts, or one of its own for those that are named."""

    def __init__(self, default: Engine) -> None:
        self.default = default
        self.special: dict[HostId, Engine] = {}

    def of(self, host: Host) -> Engine:
        return self.special.get(host.id, self.default)

    def close(self) -> None:
        """Nothing to close."""
