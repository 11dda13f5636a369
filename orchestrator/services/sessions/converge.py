"""Moves one session: observe it, plan a step, carry the step out, and repeat until nothing is left.

This is the only code that moves a session. Workers call `converge` for every nudge. Several
processes may converge the same session at once: each write is a compare-and-swap on the session's
revision or on the sandbox's state, and a process that loses the race observes again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions import planner, steps
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.planner import Observation
from orchestrator.domain.sessions.session import Failure, Session, SessionState
from orchestrator.services import writes
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims
from orchestrator.services.sessions import change_steps, generations, relocation, versions

_STEPS_MAX = 30  # a whole life has 11; more means that plan and execution disagree
_STALE_START_S = 10.0  # a worker that has not finished a start by then has died
_VERIFY_TIMEOUT_S = 3.0
_VERIFY_RETRY_S = 0.3
_WISH_RETRY_S = 1.0


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
            observation = observe(deps.store, session_id)
        except errors.NotFound:
            return Outcome(state=None, steps=tuple(taken))
        session = observation.session
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


def observe(store: ports.Store, session_id: SessionId) -> Observation:
    """Read the session, its sandbox and host, and the other sandbox of a move.

    Raises errors.NotFound if there is no such session.
    """
    session = store.sessions.get(session_id)
    sandbox = _find_sandbox(store, session.sandbox_id)
    return Observation(
        session=session,
        sandbox=sandbox,
        host=None if sandbox is None else store.hosts.get(sandbox.host_id),
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


def _carry_out(deps: Deps, session: Session, step: steps.Step) -> bool:
    """Carry out one step. Returns whether there may be more to do now."""
    now = deps.clock.now()
    match step:
        case steps.Wait():
            return _wait_until(deps, session, step.until, now)
        case steps.Claim():
            return _claim(deps, session, now)
        case steps.Start():
            return _start(deps, session, step.sandbox, now)
        case steps.Advance():
            _advance(deps, session, step.to, now)
        case steps.Verify():
            return _verify(deps, session, step.sandbox, now)
        case steps.Fail():
            writes.save(deps, replace(session, failure=step.failure, updated_at=now))
        case steps.Destroy():
            writes.save(deps, session.transition(SessionState.DESTROYING, now))
        case steps.Retire():
            claims.retire(deps, step.sandbox, step.reason)
        case steps.Remove():
            claims.remove(deps, step.sandbox)
        case steps.Requeue():
            _requeue(deps, session, now, step.attempt)
        case steps.Relocate():
            return relocation.start_move(deps, session, now)
        case steps.Switch():
            return relocation.switch_to_successor(deps, session, step.sandbox, now)
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
    if session.due_at <= now:
        writes.save(deps, replace(session, due_at=until), quiet=True)
    return False


def _claim(deps: Deps, session: Session, now: datetime) -> bool:
    """Claim a warm sandbox, or place a new one.

    If there is neither, the session stays due. It keeps its place in the queue, and the daemon
    nudges it when a slot becomes free.
    """
    if not claims.has_turn(deps.store, session, now):
        return False
    provisioning = replace(
        session.transition(SessionState.PROVISIONING, now),
        report=None,
        due_at=planner.recheck_at(now),
        deadline_at=planner.deadline_for(SessionState.PROVISIONING, now, deps.policy.deadlines),
    )
    try:
        claimed = deps.store.sandboxes.claim(provisioning, now)
        if claimed is not None:
            _announce_claim(deps, *claimed)
            return False  # the agent's first report brings us back
        claims.place(deps, provisioning, now)
    except errors.NoCapacity:
        return _wait_for_room(deps, session, now)
    except errors.Conflict as error:
        # The session's last sandbox was lost. It holds the slug until it is removed.
        raise errors.Temporary(
            f"the last sandbox of {session.id} still holds its slug", code="slug_held"
        ) from error
    deps.events.session_changed(session.id)
    deps.events.routes_changed()
    return True


def _wait_for_room(deps: Deps, session: Session, now: datetime) -> bool:
    """Keep the session in the queue, or fail it if no host of the pool can ever meet its wish.

    A session that every remaining host has refused may ask those hosts again. A session with a
    wish pauses for a moment, so that it doesn't hold up the sessions behind it that have none.
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
    if session.wish:
        due_at = now + timedelta(seconds=_WISH_RETRY_S)
        writes.save(deps, replace(session, due_at=due_at), quiet=True)
    return False


def _announce_claim(deps: Deps, session: Session, sandbox: Sandbox) -> None:
    deps.events.inbox_changed(sandbox.id)
    deps.events.session_changed(session.id)
    deps.events.pool_changed()
    if not sandbox.routed:  # it took over the slug of a session that had one
        deps.events.routes_changed()


def _start(deps: Deps, session: Session, sandbox: Sandbox, now: datetime) -> bool:
    is_stale = (now - sandbox.created_at).total_seconds() > _STALE_START_S
    try:
        claims.start(deps, sandbox, replace_stale=is_stale)
    except errors.EngineUnavailable as error:
        claims.mark_suspect(deps, sandbox.host_id, str(error))
        if sandbox.id == session.sandbox_id:
            _requeue_unstarted(deps, session, sandbox, now)
        else:
            relocation.end_move(deps, session, sandbox, str(error), now)
    except errors.SandboxRefused as error:
        if error.code == "start_in_progress":
            raise
        claims.record_refusal(deps, sandbox.host_id, error)
        if sandbox.id == session.sandbox_id:
            _record_refused_start(deps, session, sandbox, error, now)
        else:
            refused = replace(session, refused_by=(*session.refused_by, sandbox.host_id))
            relocation.end_move(deps, refused, sandbox, str(error), now)
    return True


def _record_refused_start(
    deps: Deps, session: Session, sandbox: Sandbox, error: errors.SandboxRefused, now: datetime
) -> None:
    """Fail the attempt. It is not counted as long as another host may take the session."""
    refused_by = (*session.refused_by, sandbox.host_id)
    has_other_host = deps.store.hosts.any_accepts(session.wish, without=refused_by)
    failure = Failure(
        code=error.code, message=str(error), permanent=False, counts_as_attempt=not has_other_host
    )
    writes.save(
        deps,
        replace(
            session,
            failure=failure,
            refused_by=refused_by if has_other_host else (),
            updated_at=now,
        ),
    )


def _requeue_unstarted(deps: Deps, session: Session, sandbox: Sandbox, now: datetime) -> None:
    """Requeue a session whose Docker stopped answering before the start. No attempt is counted.

    Docker may have made the container all the same; the reconcile loop finds that out.
    """
    # The sandbox holds the slug until it is removed. An app that has never run can get a new one.
    queued = replace(
        session.transition(SessionState.QUEUED, now),
        sandbox_id=None,
        slug=session.slug if session.version else None,
        report=None,
        deadline_at=None,
        due_at=now,
    )
    claims.abandon(deps, queued, sandbox, "Docker did not answer")
    deps.events.session_changed(session.id)


def _advance(deps: Deps, session: Session, to: SessionState, now: datetime) -> None:
    advanced = session.transition(to, now)
    deadline_at = planner.deadline_for(to, now, deps.policy.deadlines)
    due_at = planner.recheck_at(now)
    writes.save(deps, replace(advanced, deadline_at=deadline_at, due_at=due_at))


def _verify(deps: Deps, session: Session, sandbox: Sandbox, now: datetime) -> bool:
    if not deps.probe.answers(sandbox.slug, _VERIFY_TIMEOUT_S):
        writes.reschedule(deps, session, _VERIFY_RETRY_S)
        return False
    if session.is_changing:
        change_steps.end_change(deps, session, None, now)
        return True  # the next change may be waiting
    running = versions.find_running(deps, session)
    ready = replace(
        session.transition(SessionState.READY, now),
        version=running.version if running is not None else max(1, session.version),
        due_at=session.expires_at if session.turns.next_number is None else now,
        deadline_at=None,
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


def _requeue(deps: Deps, session: Session, now: datetime, attempt: int) -> None:
    wait_s = planner.backoff_s(session.attempt, deps.spread()) if attempt > session.attempt else 0.0
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
        attempt=attempt,
        turns=session.turns.on_new_sandbox(),
        refused_by=session.refused_by if was_refused else (),
        due_at=now + timedelta(seconds=wait_s),
    )
    if ended is None:
        writes.save(deps, queued)
        return
    deps.store.changes.conclude(ended.change, queued, ended.version)
    deps.events.session_changed(session.id)


def _finish(deps: Deps, session: Session, state: SessionState, now: datetime) -> None:
    keep_until = now + timedelta(seconds=deps.policy.bundle_retention_s)
    ended = replace(session.transition(state, now), sandbox_id=None, deadline_at=None)
    deps.store.bundles.retire(ended, keep_until)
    deps.events.session_changed(session.id)
