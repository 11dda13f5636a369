"""Works on at most one assignment at a time, while the app of an earlier one may go on serving.

Used by `work.py` and `inbox.py`.
"""

from __future__ import annotations

import asyncio

from agent.console import say
from agent.home.client import HomeClient
from agent.home.reports import ReportSender, Step
from agent.jobs.job import Job
from agent.protocol import Assignment, AssignmentFailed, Kind, Outcome, Phase
from agent.serving.site import Serving, Site
from agent.serving.stage import Stage


class Runner:
    """Its tasks live in the caller's group: one that dies of a bug takes the agent down with it."""

    def __init__(self, *, home: HomeClient, site: Site, tasks: asyncio.TaskGroup) -> None:
        self._home = home
        self._site = site
        self._tasks = tasks
        self._stage = Stage(site, tasks, on_failure=self._on_failure)
        self._reports: ReportSender | None = None
        self._working: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None
        self.assignment_id = ""

    async def replace(self, assignment: Assignment) -> None:
        """Give up what is in the making, then begin with `assignment`."""
        await self._drop_work()
        say("assignment begins", assignment_id=assignment.id, kind=str(assignment.kind))
        self.assignment_id = assignment.id
        reports = self._reports = ReportSender(self._home, assignment)
        self._site.answer_to(assignment.slug)
        self._working = self._tasks.create_task(self._carry_out(assignment, reports))
        self._delivering = self._tasks.create_task(reports.deliver())

    async def stop(self) -> None:
        await self._drop_work()
        await self._stage.close()

    async def _drop_work(self) -> None:
        tasks = {task for task in (self._working, self._delivering) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _carry_out(self, assignment: Assignment, reports: ReportSender) -> None:
        job = Job(assignment, home=self._home, reports=reports, add_log=self._add_log)
        beside = self._stage.app is not None
        self._stage.announce(Serving.STARTING)
        try:
            if assignment.kind is Kind.CHANGE and not beside:
                # After a loss nothing serves yet: first comes what is to be changed.
                self._stage.show(await job.start_bundle(await self._stage.free_slot()))
                beside = True
            made = await job.make(await self._stage.free_slot(), self._stage.app)
        except AssignmentFailed as failure:
            say("assignment failed", assignment_id=assignment.id, code=str(failure.code))
            self._stage.announce(Serving.STOPPED)
            reports.push(_after_failure(failure, stays=self._stage.app is not None))
            return
        self._stage.show(made.app)
        outcome = Outcome() if beside else None
        reports.push(
            Step(
                phase=Phase.READY,
                progress=100,
                message="the app is running",
                summary=made.summary,
                outcome=outcome,
            )
        )

    def _on_failure(self, failure: AssignmentFailed) -> None:
        # While another app is in the making, that one decides how things end.
        if self._reports is not None and self._working is not None and self._working.done():
            say("the app failed", assignment_id=self.assignment_id, code=str(failure.code))
            self._reports.push(_after_failure(failure, stays=False))

    def _add_log(self, line: str) -> None:
        if self._reports is not None:
            self._reports.add_log(line)


def _after_failure(failure: AssignmentFailed, *, stays: bool) -> Step:
    """The last report. `stays`: an app of an earlier assignment goes on serving."""
    message = failure.message.partition("\n")[0]
    if stays:
        outcome = Outcome(failure=failure)
        return Step(phase=Phase.READY, progress=100, message=message, outcome=outcome)
    return Step(phase=Phase.FAILED, progress=0, message=message, failure=failure)
