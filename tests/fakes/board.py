"""The board where the daemon posts its links: ports.LinkBoard, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.ports import LinkGauges


class BoardInMemory:
    """Keeps the gauges that were posted last."""

    def __init__(self) -> None:
        self.posted: Sequence[LinkGauges] = ()

    def post(self, gauges: Sequence[LinkGauges]) -> None:
        self.posted = gauges

    def read(self) -> Sequence[LinkGauges]:
        return self.posted
