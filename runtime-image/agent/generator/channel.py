"""The generator's channel to the agent: one JSON object a line.

The other end is `jobs/generation.py`.

The generator sends `{"event": "progress" | "result" | "error", ...}` without waiting. It sends
`{"event": "ask", "ask": "start" | "get" | "open" | "run", ...}` and waits for one line with the
answer.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from agent.failures import AssignmentFailed
from agent.jobs.messages import MESSAGE_MAX_CHARS
from orchestrator.contract.wire import FailureCode

QUESTION_MAX_CHARS = MESSAGE_MAX_CHARS // 12 - 1_000
"""As JSON a character takes up to twelve. A longer line would arrive in pieces."""


class Refused(Exception):
    """The agent doesn't take a question. The message says why."""


class Channel:
    """Both directions. One question at a time."""

    def __init__(self, incoming: TextIO, outgoing: TextIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def read_order(self) -> str:
        """The first line, see `order.py`."""
        return self._incoming.readline()

    def send(self, event: str, **fields: object) -> None:
        """Send an event that has no answer."""
        print(json.dumps({"event": event, **fields}), file=self._outgoing, flush=True)

    def ask(self, question: str, **fields: object) -> dict[str, Any]:
        """Ask and wait for the answer. The agent limits how long that takes. Raises Refused."""
        if sum(len(str(value)) for value in fields.values()) > QUESTION_MAX_CHARS:
            raise Refused(f"a call may have {QUESTION_MAX_CHARS} characters at most")
        self.send("ask", ask=question, **fields)
        answer = self._incoming.readline()
        if not answer:
            raise AssignmentFailed(FailureCode.GENERATION_FAILED, "the agent hung up")
        decoded: dict[str, Any] = json.loads(answer)
        if "refused" in decoded:
            raise Refused(str(decoded["refused"]))
        return decoded
