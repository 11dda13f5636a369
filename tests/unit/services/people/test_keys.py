"""API keys are shown once, kept as a hash, and useless once revoked."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.services.people import keys
from tests.unit.services.world import World


def test_a_key_identifies_its_user(world: World) -> None:
    new = keys.create(world.deps, " laptop ", Tier.PRO, Role.USER)
    principal = keys.identify(world.deps, new.secret)
    assert (principal.user_id, principal.tier, principal.role) == (
        new.key.user_id,
        Tier.PRO,
        Role.USER,
    )
    assert new.key.name == "laptop"


def test_the_secret_of_a_key_is_kept_nowhere(world: World) -> None:
    new = keys.create(world.deps, "laptop", Tier.PRO, Role.USER)
    (stored,) = world.store.keys.list()
    assert new.secret not in repr(stored)
    assert stored.key_hash == keys.hash_secret(new.secret)


def test_every_key_has_a_user_of_its_own(world: World) -> None:
    first, second = (keys.create(world.deps, name, Tier.PRO, Role.USER) for name in ("a", "b"))
    assert first.secret != second.secret
    assert first.key.user_id != second.key.user_id


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\nb", "a\x1b[31m", "a\u202eb", "\u200b"])
def test_a_name_that_cannot_be_shown_is_refused(world: World, name: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        keys.create(world.deps, name, Tier.PRO, Role.USER)
    assert caught.value.detail["field"] == "name"


def test_two_keys_of_one_name_are_a_conflict(world: World) -> None:
    keys.create(world.deps, "laptop", Tier.PRO, Role.USER)
    with pytest.raises(errors.Conflict):
        keys.create(world.deps, "laptop", Tier.PRO, Role.USER)


def test_a_revoked_key_opens_nothing(world: World) -> None:
    new = keys.create(world.deps, "laptop", Tier.PRO, Role.USER)
    world.store.keys.revoke(new.key.id, world.clock.now())
    with pytest.raises(errors.Unauthorized):
        keys.identify(world.deps, new.secret)


def test_a_wrong_key_opens_nothing(world: World) -> None:
    new = keys.create(world.deps, "laptop", Tier.PRO, Role.USER)
    guesses = ["", "spk_", new.secret[:-1], new.secret + "a", new.secret[4:], new.key.key_hash]
    for secret in guesses:
        with pytest.raises(errors.Unauthorized):
            keys.identify(world.deps, secret)


def test_the_installations_own_key_is_added_once(world: World) -> None:
    secret = keys.make_secret()
    for _ in range(2):
        keys.ensure_operator(world.deps, secret)
    assert keys.identify(world.deps, secret).role is Role.OPERATOR
    assert len(world.store.keys.list()) == 1


def test_the_installations_own_key_stays_revoked(world: World) -> None:
    secret = keys.make_secret()
    keys.ensure_operator(world.deps, secret)
    world.store.keys.revoke(world.store.keys.list()[0].id, world.clock.now())
    with pytest.raises(errors.Unauthorized, match="was revoked"):
        keys.ensure_operator(world.deps, secret)
    with pytest.raises(errors.Unauthorized):
        keys.identify(world.deps, secret)
