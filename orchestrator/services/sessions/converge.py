"""Moves one session: observe it, plan a step, carry the step out, and repeat until nothing is left.

This is the only code that moves a session. Workers call `converge` for every nudge. It never waits
for Docker: the daemon starts and removes containers, and nudges. Several processes may converge the
same session at once: each write is a compare-and-swap on the session's revision or on the sandbox's
state, and a process that loses the race observes again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.contract import crashes
from orchestrator.contract.wire import FAILURE_MAX_CHARS
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId, SessionId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions import planner, steps
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.planner import Observation
from orchestrator.domain.sessions.rooms import Turn
from orchestrator.domain.sessions.session import Failure, Session, SessionState
from orchestrator.services import writes
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims, host_losses
from orchestrator.services.sessions import (
    change_steps,
    generations,
    relocation,
    versions,
)

_STEPS_MAX = 30  # a whole life has 11; more means that plan and execution disagree
_LOG_LINES = 20  # at the end of the message about an app that keeps crashing
_STARTS_AGAIN = ". The app starts again in another one.]"  # ends our line in an app's log


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one converge, for the log line."""

    state: SessionState | None  # None: there is no such session
    steps: tuple[str, ...]  # names of the steps that were carried out
    waits_for: str = ""  # code of the temporary error that stopped it, if one did


def converge(deps: Deps, session_id: SessionId) -> Outcome:
    """Bring a session as close to its wanted state as possible now. Safe to repeat at any time."""
    taken: list[str] = []
    for _ in range(_STEPS_MAX):
        try:
            session = deps.store.sessions.get(session_id)
        except errors.NotFound:
            return Outcome(state=None, steps=tuple(taken))
        observation = observe(deps.store, session)
        step = planner.plan(observation, deps.clock.now())
        if isinstance(step, steps.Nothing):
            return Outcome(state=session.state, steps=tuple(taken))
        taken.append(type(step).__name__)
        try:
            if not _carry_out(deps, session, step):
                return Outcome(state=session.state, steps=tuple(taken))
        except errors.StaleWrite:
            continue
        except errors.Temporary as error:
            writes.reschedule(deps, session, error.retry_after_s)
            return Outcome(state=session.state, steps=tuple(taken), waits_for=error.code)
    return Outcome(state=session.state, steps=tuple(taken), waits_for="too_many_steps")


def observe(store: ports.Store, session: Session) -> Observation:
    """Read the session's sandbox and host, and the other sandbox of a move."""
    sandbox = _find_sandbox(store, session.sandbox_id)
    host = None if sandbox is None else _find_host(store, sandbox.host_id)
    return Observation(
        session=session,
        sandbox=None if host is None else sandbox,
        host=host,
        other_sandbox=None
        if session.move is None
        else _find_sandbox(store, session.move.sandbox_id),
    )


def _find_sandbox(store: ports.Store, sandbox_id: SandboxId | None) -> Sandbox | None:
    """The sandbox; None also if its record was deleted with its host."""
    if sandbox_id is None:
        return None
    try:
        return store.sandboxes.get(sandbox_id)
    except errors.NotFound:
        return None


def _find_host(store: ports.Store, host_id: HostId) -> Host | None:
    """The host; None if it was deleted with its sandboxes after we had read one of them."""
    try:
        return store.hosts.get(host_id)
    except errors.NotFound:
        return None


def _carry_out(deps: Deps, session: Session, step: steps.Step) -> bool:
    """Carry out one step. Returns whether there may be more to do now."""
    now = deps.clock.now()
    match step:
        case steps.Wait():
            return _wait_until(deps, session, step.until, now)
        case steps.Claim():
            return _claim(deps, session, now)
        case steps.Advance():
            _advance(deps, session, step.to, now)
        case steps.Walk():
            return _ask_for_walk(deps, session, now)
        case steps.Accept():
            return _accept(deps, session, now)
        case steps.Fail():
            _record_failure(deps, session, step, now)
        case steps.Destroy():
            return _destroy(deps, session, step, now)
        case steps.Retire():
            claims.retire(deps, step.sandbox, step.reason)
        case steps.Abandon():
            claims.abandon(deps, session, step.sandbox, step.reason)
        case steps.Requeue():
            _requeue(deps, session, step, now)
        case steps.Relocate():
            return relocation.start_move(deps, session, now)
        case steps.Switch():
            relocation.switch_to_successor(deps, session, now)
        case steps.EndMove():
            relocation.end_move(deps, session, step.sandbox, step.reason, now)
        case steps.BeginChange():
            change_steps.begin_change(deps, session, now)
        case steps.EndChange():
            change_steps.end_change(deps, session, step.failure, now)
        case steps.Finish():
            _finish(deps, session, step.state, now)
        case steps.Nothing():
            return False
    return True


def _wait_until(deps: Deps, session: Session, until: datetime, now: datetime) -> bool:
    if session.due_at <= now or until < session.due_at:
        writes.save(deps, replace(session, due_at=until), quiet=True)
    return False


def _claim(deps: Deps, session: Session, now: datetime) -> bool:
    """Claim a warm sandbox, or place a new one.

    If there is neither, the session stays due. It keeps its place in the queue, and the daemon
    nudges it when a slot becomes free.
    """
    turn = claims.find_turn(deps.store, session, now)
    if not turn.has_come:
        return False
    provisioning = replace(
        session.transition(SessionState.PROVISIONING, now),
        report=None,
        due_at=planner.recheck_at(now),
        deadline_at=planner.deadline_for(SessionState.PROVISIONING, now, deps.policy.deadlines),
    )
    if not _take_sandbox(deps, provisioning, turn, now):
        return _wait_for_room(deps, session, now)
    return False  # the agent's first report brings us back


def _take_sandbox(deps: Deps, provisioning: Session, turn: Turn, now: datetime) -> bool:
    """Claim or place a sandbox. Hosts that the session lost one on come last. False: no room."""
    if not planner.gets_cold_sandbox(provisioning):
        claimed = deps.store.sandboxes.claim(provisioning, now, without=turn.keep_warm)
        if claimed is not None:
            _announce_claim(deps, *claimed)
            return True
    try:
        claims.place(deps, provisioning, now, without=turn.keep_free)
    except errors.NoCapacity:
        if not provisioning.lost_on or claims.has_room_elsewhere(deps, provisioning):
            return False
        return _take_sandbox(deps, replace(provisioning, lost_on={}), turn, now)
    deps.events.session_changed(provisioning.id)
    deps.events.routes_changed()  # the daemon publishes its route and starts its container
    return True


def _wait_for_room(deps: Deps, session: Session, now: datetime) -> bool:
    """Keep the session in the queue, or fail it if no host of the pool can ever meet its wish.

    A session that every remaining host has refused may ask those hosts again.
    """
    if session.refused_by and not deps.store.hosts.any_accepts(
        session.wish, without=session.refused_by
    ):
        writes.save(deps, replace(session, refused_by=()), quiet=True)
        return True
    if session.wish and not deps.store.hosts.any_meets(session.wish):
        message = f"The last host with {session.wish} has left the pool"
        failure = Failure(code="placement_unknown", message=message)
        writes.save(deps, replace(session, failure=failure, updated_at=now))
        return True
    return False


def _announce_claim(deps: Deps, session: Session, sandbox: Sandbox) -> None:
    deps.events.inbox_changed(sandbox.id)
    deps.events.session_changed(session.id)
    deps.events.pool_changed()
    if not sandbox.routed:  # it took over the slug of a session that had one
        deps.events.app_switched()


def _record_failure(deps: Deps, session: Session, step: steps.Fail, now: datetime) -> None:
    failure = step.failure
    if step.shows_log:
        log = "".join(f"\n{line}" for line in _last_lines(deps, session))
        room = FAILURE_MAX_CHARS - len(failure.message)
        failure = replace(failure, message=failure.message + log[-room:])
    writes.save(deps, replace(session, failure=failure, updated_at=now))
    sandbox = _find_sandbox(deps.store, session.sandbox_id)
    if failure.code == "sandbox_not_ready" and sandbox is not None:
        with contextlib.suppress(errors.NotFound):  # its host has left the pool
            host_losses.record(deps, sandbox, session.user_id)


def _last_lines(deps: Deps, session: Session) -> Sequence[str]:
    """What the app itself logged last."""
    lines = deps.store.logs.tail(session.id, _LOG_LINES + crashes.RECOVERIES_MAX)
    own = [line.text for line in lines if not line.text.endswith(_STARTS_AGAIN)]
    return own[-_LOG_LINES:]


def _advance(deps: Deps, session: Session, to: SessionState, now: datetime) -> None:
    advanced = session.transition(to, now)
    deadline_at = planner.deadline_for(to, now, deps.policy.deadlines)
    due_at = planner.recheck_at(now)
    writes.save(deps, replace(advanced, deadline_at=deadline_at, due_at=due_at))


def _ask_for_walk(deps: Deps, session: Session, now: datetime) -> bool:
    """The result nudges. If it doesn't come, we ask again."""
    if session.due_at <= now:
        writes.save(deps, replace(session, due_at=planner.recheck_at(now)), quiet=True)
    deps.events.walk_wanted(session.id)
    return False


def _accept(deps: Deps, session: Session, now: datetime) -> bool:
    """The app is there. Returns whether a change waits already."""
    running = versions.find_running(deps, session)
    ready = replace(
        session.transition(SessionState.READY, now),
        version=running.version if running is not None else max(1, session.version),
        due_at=session.expires_at if session.turns.next_number is None else now,
        deadline_at=None,
        walked=None,
    )
    is_generated = session.template is None and not session.reused
    if running is not None and is_generated and not session.version:
        _save_first_version(deps, ready, running)
    else:
        writes.save(deps, ready)
    return ready.turns.next_number is not None


def _save_first_version(deps: Deps, ready: Session, version: BundleRecord) -> None:
    """Save the session with the summary of its first version: an equal prompt may get it too."""
    if ready.report is not None and ready.report.summary:
        version = replace(version, summary=ready.report.summary)
    deps.store.bundles.keep(version, ready)
    deps.events.session_changed(ready.id)
    generations.remember(deps, ready, version)


def _destroy(deps: Deps, session: Session, step: steps.Destroy, now: datetime) -> bool:
    destroying = session.transition(SessionState.DESTROYING, now)
    if step.sandbox is None:
        writes.save(deps, destroying)
        return True
    due_at = planner.recheck_at(now)
    claims.retire_with(deps, replace(destroying, due_at=due_at), step.sandbox, step.reason)
    return False  # the clear loop nudges the session once the sandbox is gone


def _requeue(deps: Deps, session: Session, step: steps.Requeue, now: datetime) -> None:
    pause_s = planner.spread_out(step.pause_s, deps.spread())
    was_refused = session.failure is not None and not session.failure.counts_as_attempt
    # A change whose version was kept has succeeded. It ends here, and is not repeated.
    ended = None
    if change_steps.has_kept_version(deps, session):
        ended = change_steps.conclude_change(deps, session, None, now)
        session = ended.session
    queued = replace(
        session.transition(SessionState.QUEUED, now),
        sandbox_id=None,
        report=None,
        failure=None,
        deadline_at=None,
        attempt=step.attempt,
        turns=session.turns.on_new_sandbox(),
        refused_by=session.refused_by if was_refused else (),
        due_at=now + timedelta(seconds=pause_s),
        walked=None,
        crashes=session.crashes if step.crashes is None else step.crashes,
        lost_on=session.lost_on if step.lost_on is None else step.lost_on,
    )
    if ended is None:
        writes.save(deps, queued)
    else:
        deps.store.changes.conclude(ended.change, queued, ended.version)
        deps.events.session_changed(session.id)
    if step.lost:
        line = f"[{step.lost}{_STARTS_AGAIN}"
        deps.store.logs.append(session.id, [line], now)


def _finish(deps: Deps, session: Session, state: SessionState, now: datetime) -> None:
    keep_until = now + timedelta(seconds=deps.policy.bundle_retention_s)
    ended = replace(session.transition(state, now), sandbox_id=None, deadline_at=None)
    deps.store.bundles.retire(ended, keep_until)
    deps.events.session_changed(session.id)
