"""Moves one session: observe, plan, do one step, and again until there is nothing to do now.

The only code that moves a session. Workers call it for every nudge. Any number of processes may
converge the same session at once: each write is a compare-and-swap on the session's revision or
the sandbox's state, and what loses the race observes again.
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
from orchestrator.services.sessions import generations, moving, turns, versions

_STEPS_MAX = 30  # a whole life has 11; more means that plan and execution disagree
_START_IS_STALE_S = 10.0
_VERIFY_TIMEOUT_S = 3.0
_VERIFY_AGAIN_S = 0.3
_WISH_AGAIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one converge came to, for the log line."""

    state: SessionState | None  # None: there is no such session
    steps: tuple[str, ...]
    waits_for: str = ""  # a named temporary error, when one ended it


def converge(deps: Deps, session_id: SessionId) -> Outcome:
    """Bring a session as near to what is wanted as is possible now. Safe to repeat at any time."""
    taken: list[str] = []
    for _ in range(_STEPS_MAX):
        try:
            seen = observe(deps.store, session_id)
        except errors.NotFound:
            return Outcome(state=None, steps=tuple(taken))
        step = planner.plan(seen, deps.clock.now())
        if isinstance(step, steps.Done):
            return Outcome(state=seen.session.state, steps=tuple(taken))
        taken.append(type(step).__name__)
        try:
            if not _do(deps, seen, step):
                return Outcome(state=seen.session.state, steps=tuple(taken))
        except errors.StaleWrite:
            continue
        except errors.Temporary as error:
            writes.look_again(deps, seen.session, error.retry_after_s)
            return Outcome(state=seen.session.state, steps=tuple(taken), waits_for=error.code)
    return Outcome(state=seen.session.state, steps=tuple(taken), waits_for="too_many_steps")


def observe(store: ports.Store, session_id: SessionId) -> Observation:
    """The session, its sandbox with its host, and the other one of a move. Raises errors.NotFound
    when there is no such session."""
    found = store.sessions.get(session_id)
    box = _box(store, found.sandbox_id)
    return Observation(
        session=found,
        sandbox=box,
        host=None if box is None else store.hosts.get(box.host_id),
        other=None if found.move is None else _box(store, found.move.sandbox_id),
    )


def _box(store: ports.Store, sandbox_id: SandboxId | None) -> Sandbox | None:
    """None also for one whose record went with its host."""
    if sandbox_id is None:
        return None
    try:
        return store.sandboxes.get(sandbox_id)
    except errors.NotFound:
        return None


def _do(deps: Deps, seen: Observation, step: steps.Step) -> bool:
    """Carry out one step. False: nothing more to do now."""
    now = deps.clock.now()
    match step:
        case steps.Rest():
            return _rest(deps, seen.session, step.until, now)
        case steps.Claim():
            return _claim(deps, seen.session, now)
        case steps.Start():
            return _start(deps, seen.session, step.sandbox, now)
        case steps.Advance():
            _advance(deps, seen.session, step.to, now)
        case steps.Verify():
            return _verify(deps, seen.session, step.sandbox, now)
        case steps.Fail():
            writes.save(deps, replace(seen.session, failure=step.failure, updated_at=now))
        case steps.BeginEnd():
            writes.save(deps, seen.session.transition(SessionState.DESTROYING, now))
        case steps.Retire():
            claims.retire(deps, step.sandbox, step.reason)
        case steps.Remove():
            claims.remove(deps, step.sandbox)
        case steps.Requeue():
            _requeue(deps, seen.session, now, step.attempt)
        case steps.Relocate():
            return moving.relocate(deps, seen.session, now)
        case steps.Switch():
            return moving.switch(deps, seen.session, step.sandbox, now)
        case steps.LetGo():
            moving.let_go(deps, seen.session, step, now)
        case steps.BeginChange():
            turns.begin(deps, seen.session, now)
        case steps.EndChange():
            turns.end(deps, seen.session, step.failure, now)
        case steps.Finish():
            _finish(deps, seen.session, step.state, now)
        case steps.Done():
            return False
    return True


def _rest(deps: Deps, found: Session, until: datetime, now: datetime) -> bool:
    if found.due_at <= now:
        writes.save(deps, replace(found, due_at=until), quiet=True)
    return False


def _claim(deps: Deps, found: Session, now: datetime) -> bool:
    """A warm sandbox, or a new one. With neither the session stays due, so that it keeps its place
    in the queue, and the daemon nudges it when room appears."""
    if not claims.its_turn(deps.store, found, now):
        return False
    limits = deps.policy.deadlines
    moved = replace(
        found.transition(SessionState.PROVISIONING, now),
        report=None,
        due_at=planner.look_again_at(now),
        deadline_at=planner.deadline_for(SessionState.PROVISIONING, now, limits),
    )
    try:
        claimed = deps.store.sandboxes.claim(moved, now)
        if claimed is not None:
            _announce_claim(deps, *claimed)
            return False  # the agent's first report brings us back
        claims.place(deps, moved, now)
    except errors.NoCapacity:
        return _wait_for_room(deps, found, now)
    except errors.Conflict as held:
        # The sandbox that Docker took down with it holds the slug until it is removed.
        raise errors.Temporary(
            f"the slug of {found.id} is still held by its last sandbox", code="slug_held"
        ) from held
    deps.events.session_changed(found.id)
    deps.events.routes_changed()
    return True


def _wait_for_room(deps: Deps, found: Session, now: datetime) -> bool:
    """Stay in the queue. Who asks for special hosts steps aside for a moment, so that those behind
    who don't aren't held up; who was refused by all hosts that are left may ask them again;
    who asks for what the pool no longer has is told."""
    if found.refused_by and not deps.store.hosts.could_take(found.wish, without=found.refused_by):
        writes.save(deps, replace(found, refused_by=()), quiet=True)
        return True
    if found.wish and not deps.store.hosts.known(found.wish):
        message = f"The last host with {found.wish} has left the pool"
        failure = Failure(code="placement_unknown", message=message)
        writes.save(deps, replace(found, failure=failure, updated_at=now))
        return True
    if found.wish:
        aside = now + timedelta(seconds=_WISH_AGAIN_S)
        writes.save(deps, replace(found, due_at=aside), quiet=True)
    return False


def _announce_claim(deps: Deps, claimed: Session, box: Sandbox) -> None:
    deps.events.inbox_changed(box.id)
    deps.events.session_changed(claimed.id)
    deps.events.pool_changed()
    if not box.routed:  # it took over the slug of a session that had one
        deps.events.routes_changed()


def _start(deps: Deps, found: Session, box: Sandbox, now: datetime) -> bool:
    stale = (now - box.created_at).total_seconds() > _START_IS_STALE_S
    try:
        claims.start(deps, box, replace_stale=stale)
    except errors.EngineUnavailable as error:
        claims.suspect(deps, box.host_id, str(error))
        if box.id == found.sandbox_id:
            _give_back(deps, found, box, now)
        else:
            moving.let_go(deps, found, steps.LetGo(sandbox=box, reason=str(error)), now)
    except errors.SandboxRefused as error:
        if error.code == "start_in_progress":
            raise
        claims.take_note(deps, box.host_id, error)
        if box.id == found.sandbox_id:
            _refused(deps, found, box, error, now)
        else:
            elsewhere = replace(found, refused_by=(*found.refused_by, box.host_id))
            moving.let_go(deps, elsewhere, steps.LetGo(sandbox=box, reason=str(error)), now)
    return True


def _refused(
    deps: Deps, found: Session, box: Sandbox, error: errors.SandboxRefused, now: datetime
) -> None:
    """A refusal burns no attempt as long as another host may take it."""
    refused_by = (*found.refused_by, box.host_id)
    elsewhere = deps.store.hosts.could_take(found.wish, without=refused_by)
    failure = Failure(code=error.code, message=str(error), permanent=False, burns=not elsewhere)
    writes.save(
        deps,
        replace(
            found,
            failure=failure,
            refused_by=refused_by if elsewhere else (),
            updated_at=now,
        ),
    )


def _give_back(deps: Deps, found: Session, box: Sandbox, now: datetime) -> None:
    """Docker went away before the start: back into the queue, and no attempt is burnt.

    The sandbox is let go first: the reconcile loop finds out whether Docker had made it.
    """
    claims.abandon(deps, box, "Docker did not answer")
    back = found.transition(SessionState.QUEUED, now)
    # The sandbox holds its slug until it is removed. An app that has never run can do with another.
    slug = found.slug if found.version else None
    writes.save(
        deps, replace(back, sandbox_id=None, slug=slug, report=None, deadline_at=None, due_at=now)
    )


def _advance(deps: Deps, found: Session, to: SessionState, now: datetime) -> None:
    moved = found.transition(to, now)
    deadline = planner.deadline_for(to, now, deps.policy.deadlines)
    writes.save(deps, replace(moved, deadline_at=deadline, due_at=planner.look_again_at(now)))


def _verify(deps: Deps, found: Session, box: Sandbox, now: datetime) -> bool:
    if not deps.probe.answers(box.slug, _VERIFY_TIMEOUT_S):
        writes.look_again(deps, found, _VERIFY_AGAIN_S)
        return False
    if found.changing:
        turns.end(deps, found, None, now)
        return True  # the next one may wait
    running = versions.running(deps, found)
    ready = replace(
        found.transition(SessionState.READY, now),
        version=running.version if running is not None else max(1, found.version),
        due_at=found.expires_at if found.turns.next is None else now,
        deadline_at=None,
    )
    writes.save(deps, ready)
    if running is not None and not found.version:
        _first_seen(deps, ready, running)
    return ready.turns.next is not None


def _first_seen(deps: Deps, ready: Session, version: BundleRecord) -> None:
    """The first version runs: from now on an equal prompt may have it too."""
    if ready.template is not None or ready.reused:
        return
    if ready.report is not None and ready.report.summary:
        version = replace(version, summary=ready.report.summary)
        deps.store.bundles.update(version)
    generations.keep(deps, ready, version)


def _requeue(deps: Deps, found: Session, now: datetime, attempt: int) -> None:
    burnt = attempt > found.attempt
    wait_s = planner.backoff_s(found.attempt, deps.spread()) if burnt else 0.0
    refused = found.failure is not None and not found.failure.burns
    done = turns.outcome(deps, found, None, now) if turns.was_done(deps, found) else None
    back = (found if done is None else done.session).transition(SessionState.QUEUED, now)
    queued = replace(
        back,
        sandbox_id=None,
        report=None,
        failure=None,
        deadline_at=None,
        attempt=attempt,
        turns=back.turns.elsewhere(),
        refused_by=found.refused_by if refused else (),
        due_at=now + timedelta(seconds=wait_s),
    )
    if done is None:
        writes.save(deps, queued)
        return
    deps.store.changes.conclude(done.change, queued)
    deps.events.session_changed(found.id)


def _finish(deps: Deps, found: Session, state: SessionState, now: datetime) -> None:
    keep_until = now + timedelta(seconds=deps.policy.bundle_retention_s)
    deps.store.bundles.retire(found.id, keep_until)
    writes.save(deps, replace(found.transition(state, now), sandbox_id=None, deadline_at=None))
