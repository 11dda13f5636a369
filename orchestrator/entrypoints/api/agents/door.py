"""ASGI middleware of the agent app: nobody without a valid token gets in, and nobody too often.

It reads the head alone. A body of somebody who may not send one is never read. Over the socket of a
sandbox only the tokens of that sandbox are valid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.adapters.agent_socket import HEALTH_PATH
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.people.tokens import Tokens
from orchestrator.entrypoints.api.agents.connections import REFUSED, SANDBOX
from orchestrator.entrypoints.api.agents.limits import Senders
from orchestrator.entrypoints.api.bearer import bearer_of
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.errors import problems
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.services.agents import access

INBOX_PATH = "/agent/inbox"
BUNDLE_PATH = "/agent/bundle"
TRIAL_PATH = "/agent/trial"
GATEWAY = "/v1/"


class Door:
    """Wraps the agent app."""

    def __init__(self, app: ASGIApp, tokens: Tokens, senders: Senders) -> None:
        self._app = app
        self._tokens = tokens
        self._senders = senders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        is_ours = SANDBOX not in state  # our processes and old sandboxes: see Connections
        if scope["type"] != "http" or (is_ours and scope["path"] == HEALTH_PATH):
            await self._app(scope, receive, send)
            return
        with contextlib.ExitStack() as held:
            try:
                sandbox_id = await self._sender(scope)
                held.enter_context(self._senders.request(sandbox_id))
            except errors.SpawnError as error:
                state[REFUSED] = True
                await _refusal(scope["path"], error)(scope, receive, send)
                return
            if scope["path"] != BUNDLE_PATH:  # that one doesn't stay in memory
                count = held.enter_context(self._senders.body(sandbox_id))
                receive = _counted(receive, count)
            with contextlib.suppress(ClientDisconnect):  # it went away, or it was too slow
                await self._app(scope, receive, send)

    async def _sender(self, scope: Scope) -> SandboxId:
        """The sandbox that sends this. Raises errors.Unauthorized, errors.Forbidden."""
        sandbox_id = self._owner_of_token(scope)
        own_id = scope["state"].get(SANDBOX, sandbox_id)
        if own_id != sandbox_id:
            context: Context = scope["app"].state.context
            raise await context.in_thread(access.audit_foreign, context.deps, own_id, sandbox_id)
        return sandbox_id

    def _owner_of_token(self, scope: Scope) -> SandboxId:
        connection = HTTPConnection(scope)
        if scope["path"].startswith(GATEWAY):
            return self._tokens.read_session(wire.session_token(connection)).sandbox_id
        token = bearer_of(connection)
        if token is None:
            raise errors.Unauthorized("agents send their token as `Authorization: Bearer …`")
        if scope["path"] == INBOX_PATH:
            return self._tokens.read_sandbox(token)
        return self._tokens.read_session(token).sandbox_id


def _counted(receive: Receive, count: Callable[[int], None]) -> Receive:
    """Passes on a body, and tells `count` of each part. `count` may refuse it."""

    async def counted_receive() -> Message:
        message = await receive()
        count(len(message.get("body", b"")))
        return message

    return counted_receive


def _refusal(path: str, error: errors.SpawnError) -> Response:
    """The error, in the terms of the API that the sender speaks."""
    if not path.startswith(GATEWAY):
        return problems.from_error(error)
    response = wire.error_response_for(error)
    return Response(response.body, response.head.status, dict(response.head.headers))
