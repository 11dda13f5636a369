"""Published ports that a test can kill: ports.PortLooks without a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from orchestrator.domain.pool.published_ports import Endpoint, PortAnswer


class PortLooksInMemory:
    """Every port accepts connections, unless a test says otherwise."""

    def __init__(self) -> None:
        self.answers: dict[Endpoint, PortAnswer | None] = {}  # None: we couldn't even try
        self.looks: list[Endpoint] = []

    def look(self, endpoints: Collection[Endpoint]) -> Mapping[Endpoint, PortAnswer]:
        self.looks += endpoints
        answers = {endpoint: self.answers.get(endpoint, PortAnswer.OPEN) for endpoint in endpoints}
        return {endpoint: answer for endpoint, answer in answers.items() if answer is not None}
