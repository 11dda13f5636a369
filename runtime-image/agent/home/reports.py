"""Progress reports of one assignment: queued in order, coalesced, delivered until home answers.

`runner.py` pushes; `ReportSender.deliver` runs beside it for the assignment's whole life.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

from agent.apps.loglines import LogBuffer
from agent.console import say
from agent.home.client import HomeClient
from agent.layout import MAX_LINES_PER_REPORT, MAX_MESSAGE_CHARS, MAX_SUMMARY_CHARS
from agent.protocol import Assignment, AssignmentFailed, Outcome, Phase, Report

PROGRESS_INTERVAL_S = 0.2
"""Pure progress is a nicety: one report per interval is as smooth as a page can show."""
LOGS_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happened: a report without its number and its log lines."""

    phase: Phase
    progress: int
    message: str
    failure: AssignmentFailed | None = None
    summary: str | None = None
    outcome: Outcome | None = None


class ReportQueue:
    """What home should hear next. Pure: `now_s` is an argument.

    A change of phase is kept in order; progress within one phase replaces what still waits.
    Progress never moves backwards: a failure stays where the work stopped. Log lines ride along,
    or repeat the last report when nothing else is due.
    """

    def __init__(self, logs: LogBuffer) -> None:
        self._logs = logs
        self._waiting: list[Step] = []
        self._last: Step | None = None
        self._last_at_s = float("-inf")
        self._seq = 0

    def push(self, step: Step) -> None:
        newest = self._waiting[-1] if self._waiting else self._last
        step = replace(
            step,
            progress=max(step.progress, newest.progress if newest is not None else 0),
            message=step.message[:MAX_MESSAGE_CHARS],
            summary=None if step.summary is None else step.summary[:MAX_SUMMARY_CHARS],
        )
        if self._waiting and self._waiting[-1].phase is step.phase:
            self._waiting[-1] = step
        elif newest != step:
            self._waiting.append(step)

    def due_at_s(self) -> float | None:
        """When `take` will have something; None if it waits for a push or a log line."""
        if self._waiting:
            same_phase = self._last is not None and self._last.phase is self._waiting[0].phase
            return self._last_at_s + PROGRESS_INTERVAL_S if same_phase else float("-inf")
        if self._logs and self._last is not None:
            return self._last_at_s + LOGS_INTERVAL_S
        return None

    def take(self, now_s: float) -> Report | None:
        due_at_s = self.due_at_s()
        if due_at_s is None or due_at_s > now_s:
            return None
        step = self._waiting.pop(0) if self._waiting else self._last
        if step is None:
            return None
        self._last, self._last_at_s = step, now_s
        self._seq += 1
        return Report(
            seq=self._seq,
            phase=step.phase,
            progress=step.progress,
            message=step.message,
            logs=self._logs.take(MAX_LINES_PER_REPORT),
            failure=step.failure,
            summary=step.summary,
            outcome=step.outcome,
        )


class ReportSender:
    """Delivers an assignment's reports one after the other."""

    def __init__(self, home: HomeClient, assignment: Assignment) -> None:
        self._home = home
        self._assignment = assignment
        self.logs = LogBuffer()
        self._queue = ReportQueue(self.logs)
        self._changed = asyncio.Event()

    def say(self, phase: Phase, progress: int, message: str) -> None:
        self.push(Step(phase=phase, progress=progress, message=message))

    def push(self, step: Step) -> None:
        self._queue.push(step)
        self._changed.set()

    def add_log(self, line: str) -> None:
        self.logs.add(line, asyncio.get_running_loop().time())
        self._changed.set()

    async def deliver(self) -> None:
        """Run until cancelled, or until home says that this session is not ours any more."""
        while True:
            report = await self._next_report()
            response = await self._home.request_until_answered(
                "POST",
                f"/sessions/{self._assignment.session_id}/progress",
                token=self._assignment.session_token,
                body=json.dumps(report.as_json()).encode(),
                headers=[("Content-Type", "application/json")],
            )
            if response.status in (401, 403, 404, 410):
                say("home takes no more reports of this session", status=response.status)
                return
            if response.status != 200:
                say("home refused a report", status=response.status, seq=report.seq)

    async def _next_report(self) -> Report:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            report = self._queue.take(loop.time())
            if report is not None:
                return report
            due_at_s = self._queue.due_at_s()
            try:
                async with asyncio.timeout_at(due_at_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
