"""An equal prompt within an hour gets the app of the first one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.domain import ids
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.llm.pricing import Price, PriceList, Tariff, TokenCounts
from orchestrator.domain.llm.usage import Outcome, Reservation
from orchestrator.domain.people.access import Principal
from orchestrator.domain.sessions.session import Phase, Session, Tier
from orchestrator.services.agents import inbox
from orchestrator.services.llm import spending
from orchestrator.services.sessions import generations, versions
from tests.unit.services.world import VISITOR, World, bundle_of, digest_of

_PRICE = Price(input=1, output=1, cache_write_5m=1, cache_write_1h=1, cache_read=1)
PRICES = PriceList(tariffs={"claude-test": Tariff(base=_PRICE)})
STRANGER = Principal(user_id=ids.UserId("usr_" + "s" * 26), tier=Tier.FREE)


@pytest.fixture
def first(world: World) -> Session:
    """A READY app that Claude has written."""
    world.add_host()
    return world.generate_app("a tide calendar")


def create(
    world: World, prompt: str = "a tide calendar", principal: Principal = VISITOR, **more: object
) -> Session:
    return world.create_session(principal, prompt=prompt, template=None, **more)


def test_an_equal_prompt_gets_the_earlier_app(world: World, first: Session) -> None:
    session = create(world, "  a  tide\ncalendar ")
    assert (session.bundle, session.reused) == (first.bundle, True)
    world.add_warm_sandbox()
    world.converge(session)
    assignment = inbox.visit(world.deps, world.sandbox_of(session).id, "").assignment
    assert assignment is not None
    assert (assignment["kind"], assignment["model"]) == ("bundle", None)
    world.report(session, Phase.READY)
    world.publish()
    world.converge(session)
    current = world.session(session)
    (version,) = versions.list_versions(world.deps, current)
    assert (version.version, version.provider, version.summary, version.title) == (
        1,
        "cache",
        "Tides of the week.",
        "Hello",
    )
    assert current.version == 1


def test_a_request_for_a_fresh_app_gets_one(world: World, first: Session) -> None:
    del first
    assert not create(world, fresh=True).reused


@pytest.mark.parametrize("prompt", ["another tide calendar", "A tide calendar"])
def test_another_prompt_is_another_app(world: World, first: Session, prompt: str) -> None:
    del first
    assert not create(world, prompt).reused


def test_another_users_app_is_not_reused(world: World, first: Session) -> None:
    del first
    assert not create(world, principal=STRANGER).reused


def test_another_users_app_is_reused_if_sharing_is_switched_on(world: World) -> None:
    world.add_host()
    world.policy = replace(world.policy, share_between_users=True)
    first = world.generate_app("a tide calendar")
    assert create(world, principal=STRANGER).bundle == first.bundle


def test_another_model_or_image_or_tier_is_another_app(world: World, first: Session) -> None:
    del first
    assert not create(world, principal=replace(VISITOR, tier=Tier.PRO)).reused
    policy = world.policy
    world.policy = replace(policy, model="claude-other")
    assert not create(world).reused
    world.policy, world.image = policy, "spawnai/sandbox:other"
    assert not create(world).reused


def test_after_an_hour_the_model_is_asked_again(world: World, first: Session) -> None:
    del first
    world.clock.advance(3601)
    assert not create(world).reused


def test_a_deleted_bundle_is_not_reused(world: World, first: Session) -> None:
    assert first.bundle is not None
    world.clock.advance(1)
    assert world.bundles.discard(first.bundle, world.clock.now())
    assert not create(world).reused


def test_only_the_first_version_of_an_app_is_reused(world: World, first: Session) -> None:
    world.send_message(first)
    world.converge(first)
    world.carry_out_change(first, bundle_of("blue"))
    world.converge(first)
    assert world.session(first).bundle == digest_of(bundle_of("blue"))
    assert create(world).bundle == first.bundle


def test_an_app_that_never_ran_is_not_reused(world: World, session: Session) -> None:
    world.upload_bundle(session, bundle_of(), healthy=False)
    world.report_failure(session, permanent=True)
    world.settle(session)
    assert not create(world, session.prompt).reused


def add_call(world: World, tokens: int, change: int = 0) -> None:
    """Record a call to the model that has written so many tokens."""
    now = world.clock.now()
    reservation = Reservation(
        call_id=f"call_{ids.new_slug()}",
        session_id=ids.new_session_id(),
        user_id=VISITOR.user_id,
        model="claude-test",
        worst=Spend(tokens=tokens, micro_usd=1),
        day=now.date(),
        holder="api",
        expires_at=now + timedelta(minutes=1),
        change=change,
    )
    world.store.usage.reserve(reservation, Budgets(), now)
    result = spending.CallResult(
        provider="anthropic",
        model="claude-test",
        counts=TokenCounts(output=tokens),
        outcome=Outcome.SERVED,
        duration_ms=1,
    )
    spending.settle(world.deps, spending.call_of(world.deps, reservation, result))


def test_the_expected_length_is_known_once_there_is_enough_history(world: World) -> None:
    world.policy = replace(world.policy, prices=PRICES)
    expected = generations.expected_output_tokens
    for tokens in (900, 100, 700, 300):
        add_call(world, tokens)
        assert expected(world.deps, change=False) is None
    add_call(world, 500)
    assert expected(world.deps, change=False) == 500
    assert expected(world.deps, change=True) is None, "a change is a different kind of work"
    for tokens in (10, 20, 30, 40, 50):
        add_call(world, tokens, change=1)
    assert expected(world.deps, change=True) == 30
    assert expected(world.deps, change=False) == 500
    world.clock.advance(8 * 24 * 3600)
    assert expected(world.deps, change=False) is None, "older calls do not count"
