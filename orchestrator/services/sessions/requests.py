"""What users and operators do with sessions: ask, look, extend, end. Writes intent alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SessionId, Sha256
from orchestrator.domain.people.access import LIMITS, TTL_MIN_S, Principal, Role
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions import session
from orchestrator.domain.sessions.session import Entered, Session, SessionState, Wanted
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.sessions import generations, prompts, templates

_NOBODY_WRITES = frozenset({"provider_unavailable", "provider_auth", "budget_exhausted"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks for, as it came in."""

    prompt: str
    template: str | None
    ttl_s: int | None
    idempotency_key: str | None = None
    wish: Wish = field(default_factory=Wish)
    fresh: bool = False  # whether Claude is to be asked even if it was asked the same before


@dataclass(frozen=True, kw_only=True)
class _App:
    """What a session should run."""

    template: str | None
    bundle: Sha256 | None


def create(deps: Deps, who: Principal, asked: Request) -> Session:
    """Admit a session and ask for a look at it.

    Raises errors.InvalidInput (prompt_empty, prompt_too_large, prompt_not_text, template_unknown,
    ttl_out_of_range, placement_unknown, generation_unavailable), errors.LimitReached,
    errors.Conflict (idempotency_conflict).
    """
    needed = "say what the app should be, or name a template" if asked.template is None else ""
    prompt = prompts.checked(asked.prompt, what="prompt", field="prompt", needed=needed)
    ttl_s = _checked_ttl(who, deps.policy.ttl_default_s if asked.ttl_s is None else asked.ttl_s)
    app = _choose(deps, prompt, asked.template)
    wish = _checked_wish(deps, asked.wish)
    new = replace(_new_session(who, prompt, ttl_s, app, deps.clock.now()), wish=wish)
    earlier = None if app.bundle or asked.fresh else generations.find(deps, new)
    if earlier is not None:
        new = replace(new, bundle=earlier.bundle, reused=True)
    most = LIMITS[who.tier].sessions_max
    made = deps.store.sessions.add(new, _idempotency(asked), max_active=most)
    if made.id == new.id:
        if earlier is not None:
            generations.adopt(deps, made, earlier)
        nudge(deps, made)
    return made


def get(deps: Deps, who: Principal, session_id: str) -> Session:
    """A session of this user; an operator sees everybody's. Raises errors.NotFound, also for
    somebody else's: whether an id exists is nobody else's business."""
    missing = errors.NotFound("there is no such session", code="session_unknown")
    if not ids.is_id(session_id, "ses"):
        raise missing
    try:
        found = deps.store.sessions.get(SessionId(session_id))
    except errors.NotFound as error:
        raise missing from error
    if found.user_id != who.user_id and who.role is not Role.OPERATOR:
        raise missing
    return found


def extend(deps: Deps, who: Principal, session_id: str, ttl_s: int) -> Session:
    """Let a session live for `ttl_s` from now. Raises errors.Conflict (session_ending) when its end
    has begun: an end is never taken back."""
    _checked_ttl(who, ttl_s)
    now = deps.clock.now()

    def later(found: Session) -> Session:
        if found.ended or found.wanted is Wanted.GONE:
            raise errors.Conflict(
                "this session has ended or is ending; start a new one", code="session_ending"
            )
        # due_at stays: it may be what recovery waits for, and an early look costs nothing.
        return replace(found, expires_at=now + timedelta(seconds=ttl_s), updated_at=now)

    return _change(deps, who, session_id, later)


def end(deps: Deps, who: Principal, session_id: str) -> Session:
    """Let a session end now. Repeating it, or ending what has ended, is no error."""
    now = deps.clock.now()

    def gone(found: Session) -> Session:
        if found.ended or found.wanted is Wanted.GONE:
            return found
        return replace(found, wanted=Wanted.GONE, due_at=now, updated_at=now)

    ended = _change(deps, who, session_id, gone)
    if not ended.ended:
        nudge(deps, ended)
    if ended.user_id != who.user_id:
        deps.store.audit.add(
            ports.AuditEntry(at=now, actor=who.user_id, action="session_killed", subject=ended.id)
        )
    return ended


def queue_position(deps: Deps, found: Session) -> int | None:
    """1 for the one that is next; None for sessions that don't wait."""
    if found.state is not SessionState.QUEUED or found.wanted is Wanted.GONE:
        return None
    return deps.store.sessions.ahead_of(found, deps.clock.now()) + 1


def offer(deps: Deps, found: Session) -> ports.Template | None:
    """The template nearest to what was asked for, when nobody could be had to write it."""
    failure = found.failure
    if failure is None or failure.code not in _NOBODY_WRITES or found.template is not None:
        return None
    return templates.nearest(found.prompt, deps.catalog.list())


def _change(
    deps: Deps, who: Principal, session_id: str, how: Callable[[Session], Session]
) -> Session:
    while True:
        found = get(deps, who, session_id)
        changed = how(found)
        if changed is found:
            return found
        try:
            saved = deps.store.sessions.save(changed)
        except errors.StaleWrite:
            continue
        deps.events.session_changed(saved.id)
        return saved


def _checked_ttl(who: Principal, ttl_s: int) -> int:
    most = LIMITS[who.tier].ttl_max_s
    if not TTL_MIN_S <= ttl_s <= most:
        raise errors.InvalidInput(
            f"the time to live must be between {TTL_MIN_S} and {most} seconds"
            f" ({most // 3600} hours)",
            code="ttl_out_of_range",
            field="ttl",
            min_s=TTL_MIN_S,
            max_s=most,
        )
    return ttl_s


def _checked_wish(deps: Deps, wish: Wish) -> Wish:
    """A wish that no host could ever meet would wait for ever."""
    if not wish or deps.store.hosts.known(wish):
        return wish
    regions = sorted({one.region for one in deps.store.hosts.list() if one.region})
    raise errors.InvalidInput(
        f"no host of the pool has {wish}; there are the regions: {', '.join(regions) or 'none'}",
        code="placement_unknown",
        field="region" if wish.region else "labels",
        regions=regions,
    )


def _choose(deps: Deps, prompt: str, name: str | None) -> _App:
    known = deps.catalog.list()
    names = [template.name for template in known]
    if name is not None:
        template = deps.catalog.get(name)
        if template is None:
            raise errors.InvalidInput(
                f"there is no template {name!r}; there are {', '.join(names)}",
                code="template_unknown",
                field="template",
                templates=names,
            )
        return _App(template=template.name, bundle=template.digest)
    match = templates.asked_for(prompt, known)
    if match is not None:
        return _App(template=match.name, bundle=match.digest)
    prompts.check_generation(deps, field="prompt")
    return _App(template=None, bundle=None)


def _idempotency(asked: Request) -> ports.Idempotency | None:
    if asked.idempotency_key is None:
        return None
    parts = [asked.prompt, asked.template or "", str(asked.ttl_s)]
    if asked.fresh:
        parts.append("fresh")
    if asked.wish:
        parts += [asked.wish.region, *(f"{k}={v}" for k, v in sorted(asked.wish.labels.items()))]
    text = "\0".join(parts)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return ports.Idempotency(key=asked.idempotency_key, fingerprint=digest)


def _new_session(who: Principal, prompt: str, ttl_s: int, app: _App, now: datetime) -> Session:
    return Session(
        id=ids.new_session_id(),
        user_id=who.user_id,
        tier=who.tier,
        prompt=prompt,
        template=app.template,
        bundle=app.bundle,
        state=SessionState.QUEUED,
        wanted=Wanted.RUNNING,
        slug=None,
        sandbox_id=None,
        attempt=1,
        version=0,
        report=None,
        failure=None,
        ttl_s=ttl_s,
        due_at=now,
        deadline_at=None,
        expires_at=now + timedelta(seconds=ttl_s),
        created_at=now,
        updated_at=now,
        history=(Entered(state=session.SessionState.QUEUED, at=now),),
    )
