"""Credentials: who is behind a key or a cookie. Keys are random, shown once, kept as SHA-256."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import ApiKey, Principal, Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.services.deps import Deps

KEY_PREFIX = "spk_"
_NAME_MAX = 60


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key just made; `secret` is not kept anywhere."""

    key: ApiKey
    secret: str


def create(deps: Deps, name: str, tier: Tier, role: Role) -> NewKey:
    """Make a key with a user of its own. Raises InvalidInput, Conflict (key_exists)."""
    name = name.strip()
    if not name or len(name) > _NAME_MAX or not name.isprintable():
        raise errors.InvalidInput(
            f"a key needs a name of 1 to {_NAME_MAX} printable characters", field="name"
        )
    secret = make_secret()
    key = ApiKey(
        id=ids.new_key_id(),
        name=name,
        user_id=ids.new_user_id(),
        tier=tier,
        role=role,
        key_hash=hash_of(secret),
        created_at=deps.clock.now(),
        revoked_at=None,
    )
    deps.store.keys.add(key)
    return NewKey(key=key, secret=secret)


def who(deps: Deps, secret: str) -> Principal:
    """Whose key this is. Raises errors.Unauthorized for one that isn't ours or was revoked."""
    key = deps.store.keys.by_hash(hash_of(secret)) if secret.startswith(KEY_PREFIX) else None
    if key is None:
        raise errors.Unauthorized("that API key is not known; make one with `spawnctl keys create`")
    return Principal(user_id=key.user_id, tier=key.tier, role=key.role)


def ensure_operator(deps: Deps, secret: str) -> None:
    """Make the installation's own operator key known. Idempotent. Raises errors.Unauthorized when
    that key was revoked: it stays so, and another one is needed."""
    known = next((key for key in deps.store.keys.list() if key.key_hash == hash_of(secret)), None)
    if known is not None:
        if known.revoked_at is not None:
            raise errors.Unauthorized(f"the operator key {known.name} was revoked")
        return
    deps.store.keys.add(
        ApiKey(
            id=ids.new_key_id(),
            name=f"spawnctl-{hash_of(secret)[:8]}",
            user_id=ids.new_user_id(),
            tier=Tier.OPERATOR,
            role=Role.OPERATOR,
            key_hash=hash_of(secret),
            created_at=deps.clock.now(),
            revoked_at=None,
        )
    )


def make_secret() -> str:
    """A new key: 160 random bits, so that a plain hash of it is as good as a slow one."""
    return KEY_PREFIX + base64.b32encode(secrets.token_bytes(20)).decode().lower()


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
