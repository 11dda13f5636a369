"""Makes API keys and finds out whose key it is. Called by the API.

A key is random and shown once. The store keeps only its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import ApiKey, Principal, Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.services.deps import Deps

KEY_PREFIX = "spk_"
NAME_MAX = 60
# One line of text that shows what it is: nothing invisible, nothing that turns its direction.
_HIDDEN = r"\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff"
NAME = re.compile(rf"[^{_HIDDEN}]*[^\s{_HIDDEN}][^{_HIDDEN}]*")


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A new key. `secret` is shown once and kept nowhere."""

    key: ApiKey
    secret: str


def create(deps: Deps, name: str, tier: Tier, role: Role) -> NewKey:
    """Make a key, and a new user for it.

    Raises errors.InvalidInput, errors.Conflict (key_exists).
    """
    if len(name) > NAME_MAX or not NAME.fullmatch(name):
        raise errors.InvalidInput(
            f"a key needs a name of 1 to {NAME_MAX} printable characters", field="name"
        )
    name = name.strip()
    secret = make_secret()
    key = ApiKey(
        id=ids.new_key_id(),
        name=name,
        user_id=ids.new_user_id(),
        tier=tier,
        role=role,
        key_hash=hash_secret(secret),
        created_at=deps.clock.now(),
        revoked_at=None,
    )
    deps.store.keys.add(key)
    return NewKey(key=key, secret=secret)


def identify(deps: Deps, secret: str) -> Principal:
    """The principal whose key this is. Raises errors.Unauthorized if it is unknown or revoked."""
    key = deps.store.keys.by_hash(hash_secret(secret)) if secret.startswith(KEY_PREFIX) else None
    if key is None:
        raise errors.Unauthorized("that API key is not known; make one with `spawnctl keys create`")
    return Principal(user_id=key.user_id, tier=key.tier, role=key.role)


def ensure_operator(deps: Deps, secret: str) -> None:
    """Add the installation's own operator key to the store, if it isn't there. Idempotent.

    Raises errors.Unauthorized if that key was revoked: it stays revoked, and a new one is needed.
    """
    existing = next(
        (key for key in deps.store.keys.list() if key.key_hash == hash_secret(secret)), None
    )
    if existing is not None:
        if existing.revoked_at is not None:
            raise errors.Unauthorized(f"the operator key {existing.name} was revoked")
        return
    deps.store.keys.add(
        ApiKey(
            id=ids.new_key_id(),
            name=f"spawnctl-{hash_secret(secret)[:8]}",
            user_id=ids.new_user_id(),
            tier=Tier.OPERATOR,
            role=Role.OPERATOR,
            key_hash=hash_secret(secret),
            created_at=deps.clock.now(),
            revoked_at=None,
        )
    )


def make_secret() -> str:
    """A new key of 160 random bits. Nobody can guess it, so a fast hash of it is enough."""
    return KEY_PREFIX + base64.b32encode(secrets.token_bytes(20)).decode().lower()


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
