"""The agents' listener: ports.Listener, in memory."""

from __future__ import annotations


class ListenerInMemory:
    """Answers as the process with this id. A test sets another one, or None: no answer."""

    def __init__(self, process: str | None = "agents-1") -> None:
        self.running: str | None = process

    def process(self) -> str | None:
        return self.running
