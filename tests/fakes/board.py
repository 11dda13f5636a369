"""Where links are posted, for tests: ports.LinkBoard, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.ports import LinkGauges


class BoardInMemory:
    """Keeps the last that was posted."""

    def __init__(self) -> None:
        self.posted: Sequence[LinkGauges] = ()

    def post(self, gauges: Sequence[LinkGauges]) -> None:
        self.posted = gauges

    def read(self) -> Sequence[LinkGauges]:
        return self.posted
