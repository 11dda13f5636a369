"""Progress reports of one assignment: keeps their order, merges them, sends until home answers.

`runner.py` and `job.py` push steps. `ReportSender.deliver` runs beside them until the assignment is
replaced.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

from agent.apps.loglines import LogBuffer, clean
from agent.console import log
from agent.home.client import HomeClient
from orchestrator.contract.wire import (
    FAILURE_MAX_CHARS,
    LOG_LINES_MAX,
    LOGS_MAX_BYTES,
    MESSAGE_MAX_CHARS,
    SUMMARY_MAX_CHARS,
    Assignment,
    Failure,
    Outcome,
    Phase,
    Report,
)

PROGRESS_INTERVAL_S = 0.2
"""Between reports that only tell progress. A page can show nothing smoother."""
LOGS_INTERVAL_S = 1.0
HOLD_S = 0.1
"""How long the first word of an app's start waits for its end. Most starts are over by then, and
what nobody could see is no report: each costs home a write and a look at the session."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happened: a report without its number and its log lines. The fields are Report's."""

    phase: Phase
    progress: int
    message: str
    failure: Failure | None = None
    summary: str | None = None
    outcome: Outcome | None = None


class ReportQueue:
    """Decides which report is next, and when. Pure: `now_s` is an argument.

    Steps of different phases stay in order; a step replaces a waiting step of the same phase.
    Progress never moves backwards: a failure keeps the progress that the work reached. Log lines
    join the next report; if none is due, the last one is repeated with them.
    """

    def __init__(self, logs: LogBuffer) -> None:
        self._logs = logs
        self._waiting: list[Step] = []
        self._last: Step | None = None
        self._last_at_s = float("-inf")
        self._held_until_s = float("-inf")  # the first step, if it is that of a start
        self._seq = 0

    def push(self, step: Step, now_s: float = float("-inf")) -> None:
        """Add a step. Its texts are cut to what home takes."""
        if self._last is None and not self._waiting and step.phase is Phase.DEPLOYING:
            self._held_until_s = now_s + HOLD_S
        newest = self._waiting[-1] if self._waiting else self._last
        outcome = step.outcome
        step = replace(
            step,
            progress=max(step.progress, newest.progress if newest is not None else 0),
            message=clean(step.message, MESSAGE_MAX_CHARS),
            failure=_cut(step.failure),
            summary=None if step.summary is None else clean(step.summary, SUMMARY_MAX_CHARS),
            outcome=None if outcome is None else replace(outcome, failure=_cut(outcome.failure)),
        )
        is_start_over = step.phase is Phase.READY and now_s < self._held_until_s
        if self._waiting and (is_start_over or self._waiting[-1].phase is step.phase):
            self._waiting[-1] = step
        elif newest != step:
            self._waiting.append(step)

    def due_at_s(self) -> float | None:
        """When `take` returns a report; None if that needs another step or a log line first."""
        if self._waiting:
            if self._last is None and len(self._waiting) == 1:
                is_start = self._waiting[0].phase is Phase.DEPLOYING
                return self._held_until_s if is_start else float("-inf")
            same_phase = self._last is not None and self._last.phase is self._waiting[0].phase
            return self._last_at_s + PROGRESS_INTERVAL_S if same_phase else float("-inf")
        if self._logs and self._last is not None:
            return self._last_at_s + LOGS_INTERVAL_S
        return None

    def take(self, now_s: float) -> Report | None:
        """The next report, or None if none is due."""
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
            logs=self._logs.take(LOG_LINES_MAX, LOGS_MAX_BYTES, now_s),
            failure=step.failure,
            summary=step.summary,
            outcome=step.outcome,
        )


def _cut(failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    return replace(failure, message=clean(failure.message, FAILURE_MAX_CHARS))


class ReportSender:
    """Delivers the reports of one assignment, one after the other."""

    def __init__(self, home: HomeClient, assignment: Assignment) -> None:
        self._home = home
        self._assignment = assignment
        self.logs = LogBuffer()
        self._queue = ReportQueue(self.logs)
        self._changed = asyncio.Event()

    def report(self, phase: Phase, progress: int, message: str) -> None:
        """Push a step that is nothing but progress."""
        self.push(Step(phase=phase, progress=progress, message=message))

    def push(self, step: Step) -> None:
        self._queue.push(step, asyncio.get_running_loop().time())
        self._changed.set()

    def add_log(self, line: str) -> None:
        self.logs.add(line, asyncio.get_running_loop().time())
        self._changed.set()

    async def deliver(self) -> None:
        """Send reports until cancelled, or until home says that the session has left us."""
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
                log("session_left", status=response.status)
                return
            if response.status != 200:
                log("report_rejected", status=response.status, seq=report.seq)

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
