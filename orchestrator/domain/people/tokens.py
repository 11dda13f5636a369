"""Tokens of sandboxes, sessions and visitors. They are derived from a secret, so none is stored.

A sandbox token names a sandbox. A session token names a session, an attempt, a sandbox and, if it
is for one, a change. A visitor token names a user. All are signed with HMAC-SHA256 under the
installation's secret. At each use the caller asks the store whether the session or the sandbox
still exists: ending it revokes its token.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId, SessionId, UserId


@dataclass(frozen=True, kw_only=True)
class SessionGrant:
    """What a valid session token allows its bearer to work on."""

    session_id: SessionId
    attempt: int
    sandbox_id: SandboxId
    change: int = 0  # the number of the change; 0: the session's first version


class Tokens:
    """Makes tokens and reads them. Reading raises errors.Unauthorized for any other text."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("the installation's secret needs at least 32 bytes")
        self._secret = secret

    def for_sandbox(self, sandbox_id: SandboxId) -> str:
        return self._sign("sbt", sandbox_id)

    def read_sandbox(self, token: str) -> SandboxId:
        (sandbox_id,) = self._check("sbt", token, 1)
        return SandboxId(sandbox_id)

    def for_session(self, grant: SessionGrant) -> str:
        change = [str(grant.change)] if grant.change else []
        return self._sign("set", grant.session_id, str(grant.attempt), grant.sandbox_id, *change)

    def read_session(self, token: str) -> SessionGrant:
        session_id, attempt, sandbox_id, *change = self._check("set", token, 3, 4)
        return SessionGrant(
            session_id=SessionId(session_id),
            attempt=int(attempt),
            sandbox_id=SandboxId(sandbox_id),
            change=int(change[0]) if change else 0,
        )

    def for_visitor(self, user_id: UserId) -> str:
        return self._sign("vst", user_id)

    def read_visitor(self, token: str) -> UserId:
        (user_id,) = self._check("vst", token, 1)
        if not ids.is_id(user_id, "usr"):
            raise errors.Unauthorized("that cookie names no visitor")
        return UserId(user_id)

    def _sign(self, kind: str, *parts: str) -> str:
        return ".".join((kind, *parts, self._mac(kind, parts)))

    def _check(self, kind: str, token: str, *counts: int) -> list[str]:
        prefix, *parts = token.split(".")
        if prefix != kind or len(parts) - 1 not in counts:
            raise errors.Unauthorized("that token does not look like one of ours")
        *values, mac = parts
        if not hmac.compare_digest(mac.encode(), self._mac(kind, values).encode()):
            raise errors.Unauthorized("that token is not valid")
        return values

    def _mac(self, kind: str, parts: tuple[str, ...] | list[str]) -> str:
        text = "\0".join((kind, *parts)).encode()
        return hmac.digest(self._secret, text, "sha256").hex()
