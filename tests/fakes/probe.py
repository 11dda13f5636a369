"""Public URLs that tests can break: ports.Probe without a network."""

from __future__ import annotations

from orchestrator.domain.ids import Slug


class ProbeThatSucceeds:
    """Every app answers at its URL."""

    def __init__(self) -> None:
        self.probed: list[Slug] = []

    def answers(self, slug: Slug, timeout_s: float) -> bool:
        self.probed.append(slug)
        return self._answer()

    def _answer(self) -> bool:
        return True


class ProbeThatFails(ProbeThatSucceeds):
    """No URL answers, as long as `is_down` is set."""

    is_down = True

    def _answer(self) -> bool:
        return not self.is_down
