"""Works on one assignment at a time, while the app of an earlier one may go on serving.

`work.py` creates it, `inbox.py` gives it assignments.
"""

from __future__ import annotations

import asyncio

from agent.apps.interpreters import Interpreters
from agent.console import log
from agent.failures import AssignmentFailed
from agent.home.client import HomeClient
from agent.home.reports import ReportSender, Step
from agent.jobs.handover import Handover
from agent.jobs.job import Job
from agent.serving.site import Serving, Site
from agent.serving.stage import Stage
from orchestrator.contract.wire import Assignment, Kind, Outcome, Phase


class Runner:
    """Carries out assignments. Its tasks are in the caller's group: a bug in one ends the agent."""

    def __init__(
        self,
        *,
        home: HomeClient,
        site: Site,
        tasks: asyncio.TaskGroup,
        interpreters: Interpreters,
    ) -> None:
        self._home = home
        self._site = site
        self._tasks = tasks
        self._interpreters = interpreters
        self._stage = Stage(site, tasks, on_failure=self._on_failure)
        self._reports: ReportSender | None = None
        self._working: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None
        self.assignment_id = ""

    async def replace(self, assignment: Assignment) -> None:
        """Drop the assignment that is under way, then begin with this one."""
        await self._drop_work()
        log("assignment_begun", assignment_id=assignment.id, kind=str(assignment.kind))
        self.assignment_id = assignment.id
        reports = self._reports = ReportSender(self._home, assignment)
        self._site.answer_to(assignment.slug)
        self._site.upload_max_bytes = assignment.upload_max_bytes
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
        job = Job(
            assignment,
            home=self._home,
            reports=reports,
            site=self._site,
            add_log=self._add_log,
            interpreters=self._interpreters,
        )
        had_app = self._stage.app is not None  # the new one is then started beside it
        self._stage.announce(Serving.STARTING)
        try:
            if assignment.kind is Kind.CHANGE and not had_app:
                # After a loss nothing serves yet: first start the app that is to be changed.
                async with self._stage.free_slot() as slot:
                    self._stage.show(await job.start_bundle(slot))
                had_app = True
            async with self._stage.free_slot() as slot:
                self._interpreters.wait_for(slot)
                handover = Handover(self._stage, self._site, add_log=self._add_log)
                result = await job.carry_out(slot, handover)
                await handover.finish(result.app)
        except AssignmentFailed as failure:
            log("assignment_failed", assignment_id=assignment.id, code=str(failure.code))
            self._stage.announce(Serving.STOPPED)
            reports.push(_last_step(failure, app_serves=self._stage.app is not None))
            return
        finally:
            self._interpreters.dismiss()
        outcome = Outcome() if had_app else None
        reports.push(
            Step(
                phase=Phase.READY,
                progress=100,
                message="the app is running",
                summary=result.summary,
                outcome=outcome,
            )
        )

    def _on_failure(self, failure: AssignmentFailed) -> None:
        # While another assignment is under way, its end is what counts.
        if self._reports is not None and self._working is not None and self._working.done():
            log("app_failed", assignment_id=self.assignment_id, code=str(failure.code))
            self._reports.push(_last_step(failure, app_serves=False))

    def _add_log(self, line: str) -> None:
        if self._reports is not None:
            self._reports.add_log(line)


def _last_step(failed: AssignmentFailed, *, app_serves: bool) -> Step:
    """The last report. `app_serves`: the app of an earlier assignment goes on serving."""
    message = failed.message.partition("\n")[0]
    if app_serves:
        outcome = Outcome(failure=failed.failure)
        return Step(phase=Phase.READY, progress=100, message=message, outcome=outcome)
    return Step(phase=Phase.FAILED, progress=0, message=message, failure=failed.failure)
