"""The line to the agent: JSON, one object a line. The other end is `agent/jobs/generation.py`.

We say `{"event": "progress" | "result" | "error", ...}` and expect nothing; we ask
`{"event": "ask", "ask": "start" | "get" | "run", ...}` and wait for one line with the answer.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from agent.protocol import AssignmentFailed, FailureCode


class Line:
    """Both directions. One question at a time."""

    def __init__(self, incoming: TextIO, outgoing: TextIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def first(self) -> str:
        """The order."""
        return self._incoming.readline()

    def say(self, event: str, **fields: object) -> None:
        print(json.dumps({"event": event, **fields}), file=self._outgoing, flush=True)

    def ask(self, question: str, **fields: object) -> dict[str, Any]:
        """Wait for the agent's answer; the agent bounds how long that takes."""
        self.say("ask", ask=question, **fields)
        answer = self._incoming.readline()
        if not answer:
            raise AssignmentFailed(FailureCode.GENERATION_FAILED, "the agent hung up")
        decoded: dict[str, Any] = json.loads(answer)
        return decoded
