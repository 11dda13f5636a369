"""Public URLs that tests can break: ports.Probe without a network."""

from __future__ import annotations

from orchestrator.contract.health import PATIENCE_S, Condition, Finding
from orchestrator.domain.ids import Slug


class ProbeThatSucceeds:
    """Every app is well at its URL."""

    def __init__(self) -> None:
        self.probed: list[Slug] = []
        self.trials: list[str] = []  # the secrets that came with them
        self.finding = Finding(condition=Condition.WELL)

    async def walk(self, slug: Slug, trial: str = "", *, patience_s: float = PATIENCE_S) -> Finding:
        self.probed.append(slug)
        self.trials.append(trial)
        return self._finding()

    def look(self, slug: Slug) -> Finding:
        """The same, for tests without an event loop."""
        self.probed.append(slug)
        self.trials.append("")
        return self._finding()

    def _finding(self) -> Finding:
        return self.finding


class ProbeThatFails(ProbeThatSucceeds):
    """No URL shows an app that is well, as long as `is_down` is set."""

    is_down = True

    def __init__(self, condition: Condition = Condition.SILENT, problem: str = "") -> None:
        super().__init__()
        self._failure = Finding(condition=condition, problem=problem or "GET / has no answer.")

    def _finding(self) -> Finding:
        return self._failure if self.is_down else super()._finding()
