"""Creates, shows, extends and ends sessions for users and operators. Called by the API.

These functions only write what is wanted. Converge does the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SessionId, Sha256
from orchestrator.domain.people.access import LIMITS, TTL_MAX_S, TTL_MIN_S, Principal, Role
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions.session import HistoryEntry, Session, SessionState, Wanted
from orchestrator.services import storage
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.sessions import generations, prompts, quotas, templates

_NO_PROVIDER_CODES = frozenset(
    {"provider_unavailable", "provider_auth", "provider_no_credit", "budget_exhausted"}
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for a new session, not checked yet."""

    prompt: str
    template: str | None
    ttl_s: int | None
    idempotency_key: str | None = None
    wish: Wish = field(default_factory=Wish)
    fresh: bool = False  # True: ask Claude even if an equal prompt was answered before


@dataclass(frozen=True, kw_only=True)
class _App:
    """What a session should run. Both are None if Claude is to write the app."""

    template: str | None
    bundle: Sha256 | None


def create(deps: Deps, principal: Principal, request: Request) -> Session:
    """Admit a session and nudge it. A repeated request returns the session it created before.

    Raises errors.InvalidInput (prompt_empty, prompt_too_large, prompt_not_text, template_unknown,
    ttl_out_of_range), errors.Forbidden (ttl_not_allowed), errors.Conflict (placement_unknown,
    generation_unavailable, idempotency_conflict), errors.LimitReached (also storage_quota,
    too_many_starts), errors.StorageFull (storage_low), errors.NoCapacity (queue_full).
    """
    storage.check_room(deps)
    is_required = request.template is None
    prompt = prompts.check_text(
        request.prompt,
        kind="prompt",
        field="prompt",
        if_empty="say what the app should be, or name a template" if is_required else "",
    )
    default_s = min(deps.policy.ttl_default_s, LIMITS[principal.tier].ttl_max_s)
    ttl_s = default_s if request.ttl_s is None else request.ttl_s
    _check_ttl(principal, ttl_s)
    app = _choose_app(deps, prompt, request.template)
    _check_wish(deps, request.wish)
    new = _new_session(principal, prompt, ttl_s, app, deps.clock.now())
    new = replace(new, wish=request.wish)
    version = None if app.bundle or request.fresh else generations.find_version(deps, new)
    if version is not None:
        new = replace(new, bundle=version.sha256, reused=True)
    elif app.bundle is None:
        quotas.check_can_store(deps, new.id, new.user_id)
    limits = LIMITS[principal.tier]
    session = deps.store.sessions.add(
        new,
        _idempotency(request),
        max_active=limits.sessions_max,
        max_per_minute=limits.starts_per_minute,
        max_ahead=deps.policy.queue_max,
        version=version,
    )
    if session.id == new.id:
        nudge(deps, session)
    return session


def get(deps: Deps, principal: Principal, session_id: str) -> Session:
    """One of the principal's sessions; an operator may get any session.

    Raises errors.NotFound, also for another user's session: users can't find out which ids exist.
    """
    missing = errors.NotFound("there is no such session", code="session_unknown")
    if not ids.is_id(session_id, "ses"):
        raise missing
    try:
        session = deps.store.sessions.get(SessionId(session_id))
    except errors.NotFound as error:
        raise missing from error
    if session.user_id != principal.user_id and principal.role is not Role.OPERATOR:
        raise missing
    return session


def extend(deps: Deps, principal: Principal, session_id: str, ttl_s: int) -> Session:
    """Let a session expire `ttl_s` seconds from now.

    Raises errors.NotFound, errors.InvalidInput (ttl_out_of_range), errors.Forbidden
    (ttl_not_allowed), and errors.Conflict (session_ending) once the session's end has begun: an end
    is never taken back.
    """
    _check_ttl(principal, ttl_s)
    now = deps.clock.now()

    def extended(session: Session) -> Session:
        if session.ended or session.wanted is Wanted.GONE:
            raise errors.Conflict(
                "this session has ended or is ending; start a new one", code="session_ending"
            )
        # due_at stays: a recovery may wait for it, and converging too early costs nothing.
        return replace(session, expires_at=now + timedelta(seconds=ttl_s), updated_at=now)

    return _update(deps, principal, session_id, extended)


def end(deps: Deps, principal: Principal, session_id: str) -> Session:
    """Let a session end now. No error if it is ending or has ended. Raises errors.NotFound."""
    now = deps.clock.now()

    def gone(session: Session) -> Session:
        if session.ended or session.wanted is Wanted.GONE:
            return session
        return replace(session, wanted=Wanted.GONE, due_at=now, updated_at=now)

    session = _update(deps, principal, session_id, gone)
    if not session.ended:
        nudge(deps, session)
    if session.user_id != principal.user_id:
        deps.store.audit.add(
            ports.AuditEntry(
                at=now, actor=principal.user_id, action="session_killed", subject=session.id
            )
        )
    return session


def queue_position(deps: Deps, session: Session) -> int | None:
    """The session's place in the queue, counted from 1; None if it doesn't wait."""
    if session.state is not SessionState.QUEUED or session.wanted is Wanted.GONE:
        return None
    return deps.store.sessions.count_ahead_of(session, deps.clock.now()) + 1


def suggest_template(deps: Deps, session: Session) -> ports.Template | None:
    """The template nearest to the prompt, if the session failed because no provider answered."""
    failure = session.failure
    if failure is None or failure.code not in _NO_PROVIDER_CODES or session.template is not None:
        return None
    return templates.find_nearest(session.prompt, deps.catalog.list())


def _update(
    deps: Deps, principal: Principal, session_id: str, change: Callable[[Session], Session]
) -> Session:
    """Apply `change` and save, until no other process writes in between."""
    while True:
        session = get(deps, principal, session_id)
        changed = change(session)
        if changed is session:
            return session
        try:
            saved = deps.store.sessions.save(changed)
        except errors.StaleWrite:
            continue
        deps.events.session_changed(saved.id)
        return saved


def _check_ttl(principal: Principal, ttl_s: int) -> None:
    """Nobody may go beyond the widest limits, and the principal not beyond their own."""
    own_max_s = LIMITS[principal.tier].ttl_max_s
    if TTL_MIN_S <= ttl_s <= own_max_s:
        return
    message = (
        f"the time to live must be between {TTL_MIN_S} and {own_max_s} seconds"
        f" ({own_max_s // 3600} hours)"
    )
    bounds = {"field": "ttl", "min_s": TTL_MIN_S, "max_s": own_max_s}
    if own_max_s < ttl_s <= TTL_MAX_S:
        raise errors.Forbidden(message, code="ttl_not_allowed", **bounds)
    raise errors.InvalidInput(message, code="ttl_out_of_range", **bounds)


def _check_wish(deps: Deps, wish: Wish) -> None:
    """Refuse a wish that no host of the pool meets: its session would wait for ever."""
    if not wish:
        return
    host_fields.checked_region(wish.region)
    host_fields.checked_labels(wish.labels)
    if deps.store.hosts.any_meets(wish):
        return
    regions = sorted({host.region for host in deps.store.hosts.list() if host.region})
    raise errors.Conflict(
        f"no host of the pool has {wish}; the pool's regions are: {', '.join(regions) or 'none'}",
        code="placement_unknown",
        field="region" if wish.region else "labels",
        regions=regions,
    )


def _choose_app(deps: Deps, prompt: str, name: str | None) -> _App:
    catalog = deps.catalog.list()
    names = [template.name for template in catalog]
    if name is not None:
        template = deps.catalog.get(name)
        if template is None:
            raise errors.InvalidInput(
                f"there is no template {errors.quoted(name)}; choose one of {', '.join(names)}",
                code="template_unknown",
                field="template",
                templates=names,
            )
        return _App(template=template.name, bundle=template.digest)
    match = templates.find_match(prompt, catalog)
    if match is not None:
        return _App(template=match.name, bundle=match.digest)
    prompts.check_can_generate(deps, field="prompt")
    return _App(template=None, bundle=None)


def _idempotency(request: Request) -> ports.Idempotency | None:
    if request.idempotency_key is None:
        return None
    parts = [request.prompt, request.template or "", str(request.ttl_s)]
    if request.fresh:
        parts.append("fresh")
    if request.wish:
        labels = sorted(request.wish.labels.items())
        parts += [request.wish.region, *(f"{key}={value}" for key, value in labels)]
    text = "\0".join(parts)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return ports.Idempotency(key=request.idempotency_key, fingerprint=digest)


def _new_session(
    principal: Principal, prompt: str, ttl_s: int, app: _App, now: datetime
) -> Session:
    return Session(
        id=ids.new_session_id(),
        user_id=principal.user_id,
        tier=principal.tier,
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
        history=(HistoryEntry(state=SessionState.QUEUED, at=now),),
    )
