"""Public URLs as tests want them: ports.Probe without a network."""

from __future__ import annotations

from orchestrator.domain.ids import Slug


class ProbeThatFindsAll:
    """Every app answers at its URL."""

    def __init__(self) -> None:
        self.asked: list[Slug] = []

    def answers(self, slug: Slug, timeout_s: float) -> bool:
        self.asked.append(slug)
        return self._answer()

    def _answer(self) -> bool:
        return True


class ProbeThatFindsNothing(ProbeThatFindsAll):
    """No URL answers, as long as `nothing` is set."""

    nothing = True

    def _answer(self) -> bool:
        return not self.nothing
