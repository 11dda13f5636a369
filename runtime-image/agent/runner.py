"""Runs at most one assignment at a time and replaces it when home sends another.

Used by `work.py` and `inbox.py`.
"""

from __future__ import annotations

import asyncio

from agent.console import say
from agent.home import HomeClient
from agent.job import Job
from agent.protocol import Assignment, AssignmentFailed, Phase
from agent.reports import ReportSender
from agent.site import Serving, Site


class Runner:
    """Its tasks live in the caller's group: one that dies of a bug takes the agent down with it."""

    def __init__(self, *, home: HomeClient, site: Site, tasks: asyncio.TaskGroup) -> None:
        self._home = home
        self._site = site
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []
        self.assignment_id = ""

    async def replace(self, assignment: Assignment) -> None:
        """Stop the old app, then begin with `assignment`."""
        await self.stop()
        say("assignment begins", assignment_id=assignment.id, kind=str(assignment.kind))
        self.assignment_id = assignment.id
        reports = ReportSender(self._home, assignment)
        self._running = [
            self._tasks.create_task(self._carry_out(assignment, reports)),
            self._tasks.create_task(reports.deliver()),
        ]

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = []

    async def _carry_out(self, assignment: Assignment, reports: ReportSender) -> None:
        job = Job(assignment, home=self._home, site=self._site, reports=reports)
        try:
            await job.run()
        except AssignmentFailed as failure:
            self._site.serving = Serving.STOPPED
            say("assignment failed", assignment_id=assignment.id, code=str(failure.code))
            reports.push(Phase.FAILED, 0, failure.message.partition("\n")[0], failure)
