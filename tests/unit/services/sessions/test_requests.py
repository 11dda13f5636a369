"""Creating sessions and looking at them: validation, limits, repeated requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import (
    HOUR_S,
    LIMITS,
    PROMPT_MAX_BYTES,
    Principal,
    Role,
)
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import SessionState, Tier, Wanted
from orchestrator.services.deps import Policy
from orchestrator.services.sessions import requests
from tests.fakes.queue import QueueThatIsAway
from tests.fakes.samples import later
from tests.unit.services.world import OPERATOR, VISITOR, World

PRO = Principal(user_id=ids.UserId("usr_" + "p" * 26), tier=Tier.PRO)
STRANGER = Principal(user_id=ids.UserId("usr_" + "s" * 26), tier=Tier.FREE)


# Creating


def test_a_session_is_admitted_and_nudged(world: World) -> None:
    session = world.create_session(prompt="  a tide calendar for Brest\n", template=None)
    assert world.session(session) == session
    assert (session.prompt, session.template, session.bundle) == (
        "a tide calendar for Brest",
        None,
        None,
    )
    assert (session.state, session.wanted) == (SessionState.QUEUED, Wanted.RUNNING)
    assert (session.user_id, session.tier, session.attempt) == (VISITOR.user_id, Tier.FREE, 1)
    assert session.due_at == session.created_at
    assert session.expires_at == later(24 * HOUR_S, session.created_at)
    assert world.queue.nudges == [(session.id, Queue.NORMAL)]


def test_sessions_are_admitted_while_the_queue_is_down(world: World) -> None:
    world.queue = QueueThatIsAway()
    session = world.create_session()
    assert world.session(session).due_at <= world.clock.now(), "the nudge loop must find it"


def test_a_template_can_be_named(world: World) -> None:
    template = world.catalog.get("snake")
    session = world.create_session(template="snake", prompt="")
    assert template is not None
    assert (session.template, session.bundle) == ("snake", template.digest)


def test_a_prompt_that_clearly_asks_for_a_template_gets_it(world: World) -> None:
    assert world.create_session(prompt="make me a kanban board", template=None).template == "kanban"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": "", "template": None}, "prompt_empty"),
        ({"prompt": " \n\t ", "template": None}, "prompt_empty"),
        ({"prompt": "x" * (PROMPT_MAX_BYTES + 1)}, "prompt_too_large"),
        ({"prompt": "é" * (PROMPT_MAX_BYTES // 2 + 1)}, "prompt_too_large"),
        ({"prompt": "a\0b"}, "prompt_not_text"),
        ({"prompt": "a\x1b[31mb"}, "prompt_not_text"),
        ({"prompt": "a\x85b"}, "prompt_not_text"),
        ({"prompt": "a\ud800b"}, "prompt_not_text"),
        ({"prompt": "a\uffffb"}, "prompt_not_text"),
        ({"template": "nonsense"}, "template_unknown"),
        ({"template": ""}, "template_unknown"),
        ({"template": "../kanban"}, "template_unknown"),
        ({"ttl_s": 59}, "ttl_out_of_range"),
        ({"ttl_s": 0}, "ttl_out_of_range"),
        ({"ttl_s": -1}, "ttl_out_of_range"),
        ({"ttl_s": 7 * 24 * HOUR_S + 1}, "ttl_out_of_range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_an_invalid_request_is_refused_before_anything_is_written(
    world: World, fields: dict[str, Any], code: str
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        world.create_session(**fields)
    assert caught.value.code == code
    field = str(caught.value.detail["field"])
    assert any(name.startswith(field) for name in fields)
    assert world.store.sessions.list() == []
    assert world.queue.nudges == []


@pytest.mark.parametrize(
    "prompt",
    ["x" * PROMPT_MAX_BYTES, "line 1\n\tline 2\r\n", "une liste 做得好 🚀", "<script>", "'; --"],
    ids=["as long as it may be", "lines", "unicode", "markup", "quotes"],
)
def test_any_plain_text_is_a_prompt(world: World, prompt: str) -> None:
    assert world.create_session(prompt=prompt, template=None).prompt == prompt.strip()


@pytest.mark.parametrize(
    "principal", [VISITOR, PRO, OPERATOR], ids=lambda principal: principal.tier
)
def test_each_tier_may_live_as_long_as_its_limit_says(world: World, principal: Principal) -> None:
    ttl_max_s = LIMITS[principal.tier].ttl_max_s
    session = world.create_session(principal, ttl_s=ttl_max_s)
    assert session.expires_at == later(ttl_max_s, session.created_at)
    with pytest.raises((errors.Forbidden, errors.InvalidInput)) as caught:
        world.create_session(principal, ttl_s=ttl_max_s + 1)
    nobody_may = principal is OPERATOR
    assert caught.value.code == ("ttl_out_of_range" if nobody_may else "ttl_not_allowed")
    assert caught.value.detail["max_s"] == ttl_max_s


def test_without_a_claude_key_only_templates_can_be_started(world: World) -> None:
    world.policy = Policy(can_generate=False)
    assert world.create_session(prompt="a todo list", template=None).template == "todo"
    with pytest.raises(errors.Conflict) as caught:
        world.create_session(prompt="a tide calendar for Brest", template=None)
    assert caught.value.code == "generation_unavailable"
    assert "kanban" in str(caught.value)


# Limits and repeated requests


def test_a_user_has_a_limited_number_of_sessions_at_once(world: World) -> None:
    sessions_max = LIMITS[Tier.FREE].sessions_max
    sessions = [world.create_session() for _ in range(sessions_max)]
    with pytest.raises(errors.LimitReached) as caught:
        world.create_session()
    assert caught.value.detail["limit"] == sessions_max
    assert world.create_session(STRANGER).user_id == STRANGER.user_id

    world.request_end(sessions[0])
    world.converge(sessions[0])
    assert world.state(sessions[0]) is SessionState.DESTROYED
    world.create_session()


def test_who_ends_each_app_at_once_still_starts_a_limited_number_a_minute(world: World) -> None:
    starts = LIMITS[Tier.FREE].starts_per_minute
    for _ in range(starts):
        session = world.create_session()
        world.request_end(session)
        world.converge(session)
    with pytest.raises(errors.LimitReached) as caught:
        world.create_session()
    assert (caught.value.code, caught.value.detail["limit"]) == ("too_many_starts", starts)
    assert world.create_session(STRANGER).user_id == STRANGER.user_id
    world.clock.advance(60)
    world.create_session()


def test_a_repeated_request_returns_the_first_session(world: World) -> None:
    first = world.create_session(idempotency_key="key-1")
    world.queue.nudges.clear()
    assert world.create_session(idempotency_key="key-1").id == first.id
    assert world.queue.nudges == []
    assert world.create_session(idempotency_key="key-2").id != first.id
    assert world.create_session(STRANGER, idempotency_key="key-1").id != first.id


def test_a_repeated_request_does_not_count_against_the_limit(world: World) -> None:
    first = world.create_session(idempotency_key="key-1")
    for _ in range(LIMITS[Tier.FREE].sessions_max - 1):
        world.create_session()
    assert world.create_session(idempotency_key="key-1").id == first.id


def test_an_app_without_a_time_to_live_gets_no_more_than_its_user_may_have(world: World) -> None:
    world.policy = replace(world.policy, ttl_default_s=48 * HOUR_S)
    free = world.create_session()
    paying = world.create_session(replace(VISITOR, tier=Tier.PRO))
    assert free.expires_at == later(24 * HOUR_S, free.created_at)
    assert paying.expires_at == later(48 * HOUR_S, paying.created_at)


@pytest.mark.parametrize("other", [{"template": "snake"}, {"prompt": "x"}, {"ttl_s": 600}])
def test_a_key_that_was_used_for_another_request_is_a_conflict(
    world: World, other: dict[str, Any]
) -> None:
    world.create_session(idempotency_key="key-1")
    with pytest.raises(errors.Conflict) as caught:
        world.create_session(idempotency_key="key-1", **other)
    assert caught.value.code == "idempotency_conflict"


# Looking


def test_only_the_owner_and_operators_see_a_session(world: World) -> None:
    session = world.create_session()
    assert requests.get(world.deps, VISITOR, session.id) == session
    assert requests.get(world.deps, OPERATOR, session.id) == session
    unknown = ids.new_session_id()
    answers = set()
    for principal, session_id in (
        (STRANGER, session.id),
        (OPERATOR, unknown),
        (VISITOR, "' OR 1=1"),
    ):
        with pytest.raises(errors.NotFound) as caught:
            requests.get(world.deps, principal, session_id)
        answers.add((caught.value.code, str(caught.value)))
    assert answers == {("session_unknown", "there is no such session")}


def test_the_operator_tier_does_not_make_a_user_an_operator(world: World) -> None:
    session = world.create_session()
    user = replace(OPERATOR, role=Role.USER)
    with pytest.raises(errors.NotFound):
        requests.get(world.deps, user, session.id)
