"""An equal prompt within the hour gets what the first one came to."""

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
    world.host()
    return world.generated("a tide calendar")


def ask(
    world: World, prompt: str = "a tide calendar", who: Principal = VISITOR, **more: object
) -> Session:
    return world.ask(who, prompt=prompt, template=None, **more)


def test_an_equal_prompt_gets_the_earlier_app(world: World, first: Session) -> None:
    made = ask(world, "  a  tide\ncalendar ")
    assert (made.bundle, made.reused) == (first.bundle, True)
    world.warm()
    world.converge(made)
    told = inbox.visit(world.deps, world.sandbox_of(made).id, "").assignment
    assert told is not None
    assert (told["kind"], told["model"]) == ("bundle", None)
    world.report(made, Phase.READY)
    world.publish()
    world.converge(made)
    found = world.session(made)
    (version,) = versions.of_session(world.deps, found)
    assert (version.version, version.provider, version.summary, version.title) == (
        1,
        "cache",
        "Tides of the week.",
        "Hello",
    )
    assert found.version == 1


def test_who_wants_a_fresh_one_gets_it(world: World, first: Session) -> None:
    del first
    assert not ask(world, fresh=True).reused


@pytest.mark.parametrize("prompt", ["another tide calendar", "A tide calendar"])
def test_another_prompt_is_another_app(world: World, first: Session, prompt: str) -> None:
    del first
    assert not ask(world, prompt).reused


def test_nobody_gets_what_another_user_had_made(world: World, first: Session) -> None:
    del first
    assert not ask(world, who=STRANGER).reused


def test_unless_sharing_is_switched_on(world: World) -> None:
    world.host()
    world.policy = replace(world.policy, share_between_users=True)
    first = world.generated("a tide calendar")
    assert ask(world, who=STRANGER).bundle == first.bundle


def test_another_model_or_image_or_tier_is_another_app(world: World, first: Session) -> None:
    del first
    assert not ask(world, who=replace(VISITOR, tier=Tier.PRO)).reused
    policy = world.policy
    world.policy = replace(policy, model="claude-other")
    assert not ask(world).reused
    world.policy, world.image = policy, "spawnai/sandbox:other"
    assert not ask(world).reused


def test_after_an_hour_the_model_is_asked_again(world: World, first: Session) -> None:
    del first
    world.clock.advance(3601)
    assert not ask(world).reused


def test_a_bundle_that_is_gone_is_not_promised(world: World, first: Session) -> None:
    assert first.bundle is not None
    world.bundles.discard(first.bundle)
    assert not ask(world).reused


def test_what_a_message_made_of_it_is_nobody_elses_first_version(
    world: World, first: Session
) -> None:
    world.say(first)
    world.converge(first)
    world.carry_out(first, bundle_of("blue"))
    world.converge(first)
    assert world.session(first).bundle == digest_of(bundle_of("blue"))
    assert ask(world).bundle == first.bundle


def test_an_app_that_never_ran_is_not_started_again(world: World, session: Session) -> None:
    world.keep(session, bundle_of(), healthy=False)
    world.give_up(session, permanent=True)
    world.settle(session)
    assert not ask(world, session.prompt).reused


def written(world: World, tokens: int, change: int = 0) -> None:
    """A call to the model that has written so much."""
    now = world.clock.now()
    made = Reservation(
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
    world.store.usage.reserve(made, Budgets(), now)
    ended = spending.Ended(
        provider="anthropic",
        model="claude-test",
        counts=TokenCounts(output=tokens),
        outcome=Outcome.SERVED,
        duration_ms=1,
    )
    spending.settle(world.deps, made, ended)


def test_the_usual_length_is_known_once_there_is_some_history(world: World) -> None:
    world.policy = replace(world.policy, prices=PRICES)
    expected = generations.expected_output_tokens
    for tokens in (900, 100, 700, 300):
        written(world, tokens)
        assert expected(world.deps, change=False) is None
    written(world, 500)
    assert expected(world.deps, change=False) == 500
    assert expected(world.deps, change=True) is None, "a change is another kind of work"
    for tokens in (10, 20, 30, 40, 50):
        written(world, tokens, change=1)
    assert expected(world.deps, change=True) == 30
    assert expected(world.deps, change=False) == 500
    world.clock.advance(8 * 24 * 3600)
    assert expected(world.deps, change=False) is None, "last month's model was another one"
