"""A model, in memory, of how converge carries out steps. Tests of the planner's properties use it.

The test says, event by event, what happens outside: a start fails, a route is confirmed, an agent
reports, time passes. Illegal transitions raise by themselves.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.contract.health import Condition, Finding
from orchestrator.domain.ids import Sha256
from orchestrator.domain.pool import sandbox as sandboxes
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.sandbox import ROUTED_STATES, Sandbox, SandboxState
from orchestrator.domain.sessions import planner, steps, walks
from orchestrator.domain.sessions.planner import Observation
from orchestrator.domain.sessions.reports import accept_report, accept_successor_report
from orchestrator.domain.sessions.session import (
    Failure,
    Move,
    Phase,
    Report,
    Session,
    SessionState,
    Wanted,
)
from tests.fakes import samples


class Event(enum.Enum):
    """What can happen outside, at any time."""

    TIME = "a little time passes"
    LONG_TIME = "much time passes"
    ROUTES = "the publisher confirms the routes that are due"
    GENERATING = "the agent lets the model write"
    DEPLOYING = "the agent starts the app"
    READY = "the agent reports that the app runs"
    FAILED_FOR_NOW = "the agent reports a temporary failure"
    FAILED_FOR_GOOD = "the agent reports a permanent failure"
    CONNECTED = "the agent polls its inbox"
    BROKEN = "a diagnosis finds the sandbox broken"
    BUNDLE_KEPT = "the agent uploads its bundle"
    FULL = "there is no capacity"
    WARM = "there are warm sandboxes"
    COLD = "there are only free slots"
    START_REFUSED = "Docker refuses starts"
    ENGINE_DOWN = "Docker goes away"
    ENGINE_UP = "Docker works"
    URL_DEAD = "URLs don't answer"
    URL_ALIVE = "URLs answer"
    HOST_AWAY = "its host doesn't answer for a moment"
    HOST_BACK = "its host answers"
    DRAIN = "its host is drained"
    DRAIN_OVER = "the drain of its host is over"
    OTHER_CONNECTED = "the agent of its other sandbox polls its inbox"
    OTHER_READY = "the agent of its other sandbox reports that the app runs"
    OTHER_FAILED = "the agent of its other sandbox reports a failure"
    CHANGE_REQUESTED = "its user requests a change"
    SETBACK = "the agent reports that the change failed"
    OTHER_BROKEN = "a diagnosis finds its other sandbox broken"


_PHASES = {
    Event.GENERATING: Phase.GENERATING,
    Event.DEPLOYING: Phase.DEPLOYING,
    Event.READY: Phase.READY,
    Event.SETBACK: Phase.READY,
    Event.FAILED_FOR_NOW: Phase.FAILED,
    Event.FAILED_FOR_GOOD: Phase.FAILED,
}
_WAITS_S = {Event.TIME: 1.0, Event.LONG_TIME: 700.0}
_FOR_OTHER = {Event.OTHER_CONNECTED: Event.CONNECTED, Event.OTHER_BROKEN: Event.BROKEN}


@dataclass
class Life:
    """One session, its sandbox and host, the other sandbox of a move, and the world outside."""

    session: Session = field(default_factory=samples.session)
    sandbox: Sandbox | None = None
    host: Host = field(default_factory=samples.host)
    other: Sandbox | None = None
    now: datetime = samples.NOW
    capacity: Event = Event.WARM
    engine: Event = Event.ENGINE_UP
    url: Event = Event.URL_ALIVE
    reports: int = 0

    def observe(self) -> Observation:
        host = self.host if self.sandbox is not None else None
        return Observation(
            session=self.session, sandbox=self.sandbox, host=host, other_sandbox=self.other
        )

    @property
    def snapshot(self) -> tuple[object, ...]:
        """Everything that a step can change."""
        return (self.session, self.sandbox, self.other)

    def happen(self, event: Event) -> None:
        """Let one event happen."""
        if event in _WAITS_S:
            self.now += timedelta(seconds=_WAITS_S[event])
        elif event in _PHASES:
            self._report(event)
        elif event in {Event.FULL, Event.WARM, Event.COLD}:
            self.capacity = event
        elif event in {Event.START_REFUSED, Event.ENGINE_DOWN, Event.ENGINE_UP}:
            self.engine = event
        elif event in {Event.URL_DEAD, Event.URL_ALIVE}:
            self.url = event
        elif event is Event.BUNDLE_KEPT:
            self.session = replace(self.session, bundle=Sha256("b" * 64))
        elif event is Event.CHANGE_REQUESTED:
            turns = replace(self.session.turns, requested=self.session.turns.requested + 1)
            self.session = replace(self.session, turns=turns)
        elif event in {Event.HOST_AWAY, Event.HOST_BACK}:
            state = HostState.UP if event is Event.HOST_BACK else HostState.SUSPECT
            self.host = replace(self.host, state=state, state_since=self.now)
        elif event in {Event.DRAIN, Event.DRAIN_OVER}:
            drain = Drain.MOVE if event is Event.DRAIN else Drain.NONE
            self.host = replace(self.host, drain=drain)
        elif event in {Event.OTHER_READY, Event.OTHER_FAILED}:
            self._report_of_other(event)
        else:
            self._happen_to_sandboxes(event)

    def run(self) -> list[str]:
        """Plan and carry out steps, and let the daemon do its part, until there is nothing to do.

        Returns the names of the steps.

        Raises AssertionError if a state recurs, because then it would never stop.
        """
        names: list[str] = []
        snapshots: list[object] = []
        walked = self.session.walked
        if walked is not None and walked.failed and walked.next_at <= self.now:
            self._walk()
        while True:
            step = planner.plan(self.observe(), self.now)
            names.append(type(step).__name__)
            assert self.snapshot not in snapshots, f"a cycle: {names}"
            snapshots.append(self.snapshot)
            if not self._execute(step) and not self._run_daemon():
                return names

    def _walk(self) -> None:
        """Do the part of the process that walks, unless converge knows enough."""
        walked = self.session.walked
        if walked is not None and (walked.condition is Condition.WELL or walked.is_given_up):
            return
        is_dead = self.url is Event.URL_DEAD
        finding = Finding(condition=Condition.SILENT if is_dead else Condition.WELL)
        self.session = replace(self.session, walked=walks.add(walked, finding, self.now))

    def end(self) -> None:
        self.session = replace(self.session, wanted=Wanted.GONE)

    def _report(self, event: Event) -> None:
        if self.sandbox is None or self.sandbox.state is not SandboxState.CLAIMED:
            return
        self.reports += 1
        failure, setback = None, None
        if event is Event.SETBACK:
            if not self.session.is_changing:
                return
            setback = Failure(code="app_not_healthy", message="no answer")
        if _PHASES[event] is Phase.FAILED:
            permanent = event is Event.FAILED_FOR_GOOD
            failure = Failure(code="app_not_ready", message="it exited", permanent=permanent)
        report = Report(
            seq=self.reports, phase=_PHASES[event], progress=50, failure=failure, setback=setback
        )
        self.session = accept_report(self.session, report, self.now) or self.session

    def _report_of_other(self, event: Event) -> None:
        move = self.session.move
        if self.other is None or self.other.state is not SandboxState.CLAIMED or move is None:
            return
        if move.switched_at is not None:  # the agent that is left behind is being stopped
            return
        phase = Phase.READY if event is Event.OTHER_READY else Phase.FAILED
        report = Report(seq=move.report.seq + 1 if move.report else 1, phase=phase, progress=50)
        self.session = accept_successor_report(self.session, report, self.now) or self.session

    def _happen_to_sandboxes(self, event: Event) -> None:
        if self.sandbox is not None and event not in _FOR_OTHER:
            self.sandbox = self._sandbox_after(event, self.sandbox)
        if self.other is not None and (event in _FOR_OTHER or event is Event.ROUTES):
            self.other = self._sandbox_after(_FOR_OTHER.get(event, event), self.other)

    def _sandbox_after(self, event: Event, sandbox: Sandbox) -> Sandbox:
        if event is Event.ROUTES:
            marked = replace(sandbox, routed=sandbox.state in ROUTED_STATES)
            return sandboxes.finish_creating(marked, self.now)
        if event is Event.CONNECTED and sandbox.container_id is not None:
            return sandboxes.finish_creating(replace(sandbox, agent_seen_at=self.now), self.now)
        if event is Event.BROKEN and sandbox.state in ROUTED_STATES:
            return sandbox.transition(SandboxState.BROKEN, self.now, "it is broken")
        return sandbox

    def _execute(self, step: steps.Step) -> bool:
        """Do what converge does. Returns whether there may be more to do now."""
        match step:
            case steps.Wait(until=until):
                assert until > self.now or self.session.state is SessionState.READY
                return False
            case steps.Nothing():
                return False
            case steps.Claim():
                return self._claim()
            case steps.Relocate():
                return self._relocate()
            case steps.Switch():
                self._switch(step.sandbox)
            case steps.Walk():
                assert step.sandbox.routed
                self._walk()
            case steps.Accept():
                self._become_ready()
            case steps.Retire(sandbox=sandbox, reason=reason):
                stopping = sandbox.transition(SandboxState.STOPPING, self.now, reason)
                self.sandbox = replace(stopping, routed=True)
            case steps.Abandon(sandbox=sandbox, reason=reason):
                if sandbox.state is not SandboxState.STOPPING:
                    sandbox = sandbox.transition(SandboxState.STOPPING, self.now, reason)
                self.sandbox = replace(sandbox, session_id=None)
            case _:
                self._write(step)
        return True

    def _write(self, step: steps.Step) -> None:
        match step:
            case steps.Advance(to=to):
                self._enter(to)
            case steps.Fail(failure=failure):
                assert self.session.failure is None
                self.session = replace(self.session, failure=failure)
            case steps.BeginChange():
                self._enter(SessionState.GENERATING)
                turns = self.session.turns.start_next()
                self.session = replace(self.session, turns=turns, report=None)
                self.reports = 0
            case steps.EndChange():
                self._become_ready()
            case steps.Destroy(sandbox=sandbox, reason=reason):
                self._enter(SessionState.DESTROYING)
                if sandbox is not None:
                    self.sandbox = replace(
                        sandbox.transition(SandboxState.STOPPING, self.now, reason), routed=True
                    )
            case steps.EndMove(sandbox=sandbox):
                assert sandbox is self.other
                self._end_move()
            case steps.Requeue(attempt=attempt, pause_s=pause_s, crashes=crashes):
                self._return_to_queue()
                due = self.now + timedelta(seconds=pause_s)
                crashes = self.session.crashes if crashes is None else crashes
                self.session = replace(
                    self.session, failure=None, attempt=attempt, due_at=due, crashes=crashes
                )
            case steps.Finish(state=state):
                self._enter(state)
                if self.sandbox is not None and self.sandbox.session_id is None:
                    self.sandbox = None  # the pool has it
                self.session = replace(self.session, sandbox_id=None)
            case _:
                raise AssertionError(f"the model doesn't know {step}")

    def _enter(self, to: SessionState) -> None:
        deadline = planner.deadline_for(to, self.now, planner.Deadlines())
        entered = self.session.transition(to, self.now)
        walked = entered.walked if to is SessionState.DEPLOYING else None
        self.session = replace(entered, deadline_at=deadline, walked=walked)

    def _become_ready(self) -> None:
        """Enter READY. A change that was under way or given up is finished."""
        if self.session.is_changing or self.session.state is SessionState.READY:
            self.session = replace(self.session, turns=self.session.turns.finish_next())
        if self.session.state is not SessionState.READY:
            self._enter(SessionState.READY)

    def _claim(self) -> bool:
        if self.capacity is Event.FULL:
            return False
        self.sandbox = self._new_sandbox()
        self.host = samples.host()
        self._enter(SessionState.PROVISIONING)
        self.session = replace(self.session, sandbox_id=self.sandbox.id, report=None)
        self.reports = 0
        return self.capacity is Event.COLD

    def _new_sandbox(self) -> Sandbox:
        is_cold = self.capacity is Event.COLD
        return samples.sandbox(
            session_id=self.session.id,
            state=SandboxState.CREATING if is_cold else SandboxState.CLAIMED,
            container_id=None if is_cold else "c" * 64,
            agent_seen_at=None if is_cold else self.now,
            routed=not is_cold,
            created_at=self.now,
            state_since=self.now,
        )

    def _relocate(self) -> bool:
        assert self.session.move is None
        due = planner.recheck_at(self.now)
        self.session = replace(self.session, due_at=due)
        if self.capacity is Event.FULL:
            return self.session.turns.next_number is not None
        self.other = self._new_sandbox()
        self.session = replace(self.session, move=Move(sandbox_id=self.other.id))
        return self.capacity is Event.COLD

    def _switch(self, new: Sandbox) -> None:
        assert {self.sandbox.state, new.state} == {SandboxState.CLAIMED}
        assert new.routed, "nobody has verified that the app answers there"
        old = self.sandbox
        self.sandbox = replace(new, slug=old.slug, routed=False)
        self.other = replace(old, slug=new.slug, routed=False)
        self.host = samples.host()
        move = Move(sandbox_id=old.id, switched_at=self.now)
        report = self.session.move.report
        self.session = replace(
            self.session,
            sandbox_id=new.id,
            move=move,
            report=report,
            turns=self.session.turns.on_new_sandbox(),
            walked=None,
        )

    def _end_move(self) -> None:
        """From here on the pool takes care of the other sandbox."""
        self.other = None
        due = planner.recheck_at(self.now)
        self.session = replace(self.session, move=None, due_at=due, walked=None)

    def _run_daemon(self) -> bool:
        """Start what was placed, remove what is withdrawn. Returns whether anything changed."""
        before = self.snapshot
        for sandbox in (self.sandbox, self.other):
            if sandbox is None:
                continue
            if sandbox.state is SandboxState.CREATING and sandbox.container_id is None:
                self._start(sandbox)
        sandbox = self.sandbox
        is_withdrawn = sandbox is not None and not sandbox.routed
        if is_withdrawn and sandbox.state is SandboxState.STOPPING:
            if self.engine is Event.ENGINE_DOWN:
                return self.snapshot != before
            self.sandbox = sandbox.transition(SandboxState.GONE, self.now)
        return self.snapshot != before

    def _start(self, sandbox: Sandbox) -> None:
        is_other = sandbox is self.other
        if self.engine is Event.ENGINE_UP:
            started = replace(sandbox, container_id="c" * 64)
            if is_other:
                self.other = started
            else:
                self.sandbox = started
        elif is_other:
            self.other = sandbox.transition(SandboxState.BROKEN, self.now, "refused")
        elif self.session.failure is None:
            is_refused = self.engine is Event.START_REFUSED
            failure = Failure(
                code="create_failed",
                message="refused",
                permanent=False,
                counts_as_attempt=is_refused,
            )
            self.session = replace(self.session, failure=failure)
        if self.engine is Event.ENGINE_DOWN:
            self.capacity = Event.FULL

    def _return_to_queue(self) -> None:
        self._enter(SessionState.QUEUED)
        self.session = replace(
            self.session,
            sandbox_id=None,
            report=None,
            due_at=self.now,
            turns=self.session.turns.on_new_sandbox(),
        )
        self.sandbox = None
