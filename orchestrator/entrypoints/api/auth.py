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

_COOKIE = "spawn_user"
# Browsers accept a cookie of this prefix only over TLS and from the page itself: no app can set it.
_COOKIE_UNDER_TLS = "__Host-spawn_user"
_COOKIE_AGE_S = 365 * 24 * 3600


def principal(request: Request) -> Principal:
    """The caller. A visitor without a cookie becomes a new user, and the answer sets the cookie.

    Raises errors.Unauthorized for an unknown key; it never falls back to the cookie then. Raises
    errors.AmbiguousCookie if the visitor's cookie comes twice.
    """
    context = context_of(request)
    caller = _from_key(context, request) or _from_cookie(context, request)
    if caller is None:
        caller = Principal(user_id=ids.new_user_id(), tier=Tier.FREE)
        request.state.new_cookie = _make_cookie(context, caller)  # Guard puts it into the answer
    request.state.user_id = caller.user_id  # AccessLog names it
    return caller


async def identify(request: Request) -> Principal:
    """`principal`, without a thread if it can be."""
    return await context_of(request).look_up(principal, request)


async def operator(request: Request) -> Principal:
    """The operator whose key the caller sends.

    Raises errors.Unauthorized without a valid key, errors.Forbidden with a user's key.
    """
    return await context_of(request).look_up(_operator, request)


Caller = Annotated[Principal, Depends(identify)]
Operator = Annotated[Principal, Depends(operator)]


def _operator(request: Request) -> Principal:
    caller = _from_key(context_of(request), request)
    if caller is None:
        raise errors.Unauthorized("this needs an operator's API key, as a Bearer token")
    request.state.user_id = caller.user_id
    if caller.role is not Role.OPERATOR:
        raise errors.Forbidden("this needs an operator's key; yours is a user's")
    return caller


def _from_key(context: Context, request: Request) -> Principal | None:
    token = bearer_of(request)
    return None if token is None else keys.identify(context.deps, token)


def _from_cookie(context: Context, request: Request) -> Principal | None:
    values = _cookies_of(request, _cookie_name(context))
    if not values:
        return None
    if len(values) > 1:
        # Only one of them is from us, and browsers don't say which.
        raise errors.AmbiguousCookie(
            "your browser sends two identities for this page, perhaps because an app has set a"
            " cookie for it: delete this site's cookies in the browser, and load the page again"
        )
    (raw,) = values
    try:
        user_id = context.deps.tokens.read_visitor(raw)
    except errors.Unauthorized:
        return None  # from another installation, or tampered with: treat as a new visitor
    return Principal(user_id=user_id, tier=Tier.FREE)


def _cookie_name(context: Context) -> str:
    return _COOKIE_UNDER_TLS if context.settings.people.cookie_secure else _COOKIE


def _cookies_of(request: Request, name: str) -> list[str]:
    """The values of every cookie of this name. Parsers, Starlette's too, return only the last."""
    pairs = (
        pair.partition("=")
        for header in request.headers.getlist("cookie")
        for pair in header.split(";")
    )
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def _make_cookie(context: Context, visitor: Principal) -> str:
    name = _cookie_name(context)
    cookie: SimpleCookie = SimpleCookie()
    cookie[name] = context.deps.tokens.for_visitor(visitor.user_id)
    morsel = cookie[name]
    morsel["path"] = "/"
    morsel["max-age"] = _COOKIE_AGE_S
    morsel["httponly"] = True
    morsel["samesite"] = "Lax"
    if context.settings.people.cookie_secure:
        morsel["secure"] = True
    return morsel.OutputString()
