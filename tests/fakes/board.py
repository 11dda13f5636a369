"""How the links are, kept in memory: ports.LinkBoard."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.ports import LinkGauges


class BoardInMemory:
    """Gives back what was posted last."""

    def __init__(self) -> None:
        self.posted: Sequence[LinkGauges] = ()

    def post(self, gauges: Sequence[LinkGauges]) -> None:
        self.posted = list(gauges)

    def read(self) -> Sequence[LinkGauges]:
        return self.posted
