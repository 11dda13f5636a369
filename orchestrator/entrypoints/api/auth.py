"""Identifies the caller of a request: by API key, or by the signed cookie of a visitor.

The endpoints of the public app depend on `Caller` or `Operator`.
"""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import Principal, Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.api.bearer import bearer_of
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.services.people import keys

COOKIE = "spawn_user"
_COOKIE_AGE_S = 365 * 24 * 3600


def principal(request: Request) -> Principal:
    """The caller. A visitor without a cookie becomes a new user, and the answer sets the cookie.

    Raises errors.Unauthorized for an unknown key; it never falls back to the cookie then.
    """
    context = context_of(request)
    caller = _from_key(context, request) or _from_cookie(context, request)
    if caller is not None:
        return caller
    visitor = Principal(user_id=ids.new_user_id(), tier=Tier.FREE)
    request.state.new_cookie = _make_cookie(context, visitor)  # Guard puts it into the answer
    return visitor


def operator(request: Request) -> Principal:
    """The operator whose key the caller sends.

    Raises errors.Unauthorized without a valid key, errors.Forbidden with a user's key.
    """
    caller = _from_key(context_of(request), request)
    if caller is None:
        raise errors.Unauthorized("this needs an operator's API key, as a Bearer token")
    if caller.role is not Role.OPERATOR:
        raise errors.Forbidden("this needs an operator's key; yours is a user's")
    return caller


Caller = Annotated[Principal, Depends(principal)]
Operator = Annotated[Principal, Depends(operator)]


def _from_key(context: Context, request: Request) -> Principal | None:
    token = bearer_of(request)
    return None if token is None else keys.identify(context.deps, token)


def _from_cookie(context: Context, request: Request) -> Principal | None:
    raw = request.cookies.get(COOKIE)
    if raw is None:
        return None
    try:
        user_id = context.deps.tokens.read_visitor(raw)
    except errors.Unauthorized:
        return None  # from another installation, or tampered with: treat as a new visitor
    return Principal(user_id=user_id, tier=Tier.FREE)


def _make_cookie(context: Context, visitor: Principal) -> str:
    cookie: SimpleCookie = SimpleCookie()
    cookie[COOKIE] = context.deps.tokens.for_visitor(visitor.user_id)
    morsel = cookie[COOKIE]
    morsel["path"] = "/"
    morsel["max-age"] = _COOKIE_AGE_S
    morsel["httponly"] = True
    morsel["samesite"] = "Lax"
    if context.settings.people.cookie_secure:
        morsel["secure"] = True
    return morsel.OutputString()
