"""What tests of the conversation share: turns, a time of their own, and the outcome."""

from __future__ import annotations

from typing import Any

from agent.failures import AssignmentFailed
from agent.generator.main import generate
from agent.generator.model import Clock
from agent.generator.order import Order

from tests.fakes.agents.agent import FakeAgent
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import CallsTurn, ErrorTurn, ToolTurn

PAGE = CallsTurn(
    calls=[
        ("write_file", {"path": "spawn.json", "content": '{"kind": "static"}'}),
        ("write_file", {"path": "index.html", "content": "<h1>hello</h1>"}),
    ]
)
BUDGET = ErrorTurn(
    status=402, type="billing_error", message="nothing is left today", code="budget_exhausted"
)
FINISH = ToolTurn(name="finish", input={"summary": "A page that says hello."})


class FakeTime:
    """Passes only while somebody sleeps, and `tick_s` with each look."""

    def __init__(self, tick_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.tick_s = tick_s
        self.slept: list[float] = []

    @property
    def clock(self) -> Clock:
        return Clock(now=self._now, sleep=self._sleep)

    def _now(self) -> float:
        self.now_s += self.tick_s
        return self.now_s

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def outcome(order: Order, agent: FakeAgent, time: FakeTime) -> str:
    """The summary, or the failure's code and message."""
    try:
        return generate(order, agent, time.clock)
    except AssignmentFailed as failure:
        return f"{failure.code}: {failure.message}"


def told(model: MessagesApi, at: int) -> list[dict[str, Any]]:
    """The last message of one request."""
    content: list[dict[str, Any]] = model.requests[at].body["messages"][-1]["content"]
    return content
