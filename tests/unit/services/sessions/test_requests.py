"""What users and operators do with sessions: ask, look, extend, end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import (
    HOUR_S,
    LIMITS,
    PROMPT_MAX_BYTES,
    TTL_DEFAULT_S,
    Principal,
    Queue,
    Role,
)
from orchestrator.domain.sessions.session import SessionState, Tier, Wanted
from orchestrator.services.deps import Policy
from orchestrator.services.sessions import requests
from tests.fakes.queue import QueueThatIsAway
from tests.fakes.samples import later
from tests.unit.services.world import OPERATOR, VISITOR, World

PRO = Principal(user_id=ids.UserId("usr_" + "p" * 26), tier=Tier.PRO)
STRANGER = Principal(user_id=ids.UserId("usr_" + "s" * 26), tier=Tier.FREE)


# Asking


def test_a_session_is_admitted_and_looked_at(world: World) -> None:
    made = world.ask(prompt="  a tide calendar for Brest\n", template=None)
    assert world.session(made) == made
    assert (made.prompt, made.template, made.bundle) == ("a tide calendar for Brest", None, None)
    assert (made.state, made.wanted) == (SessionState.QUEUED, Wanted.RUNNING)
    assert (made.user_id, made.tier, made.attempt) == (VISITOR.user_id, Tier.FREE, 1)
    assert made.due_at == made.created_at
    assert made.expires_at == later(TTL_DEFAULT_S, made.created_at)
    assert world.queue.nudges == [(made.id, Queue.NORMAL)]


def test_a_queue_that_is_away_keeps_nobody_from_asking(world: World) -> None:
    world.queue = QueueThatIsAway()
    made = world.ask()
    assert world.session(made).due_at <= world.clock.now(), "the nudge loop would not find it"


def test_a_template_is_taken_by_name(world: World) -> None:
    template = world.catalog.get("snake")
    made = world.ask(template="snake", prompt="")
    assert template is not None
    assert (made.template, made.bundle) == ("snake", template.digest)


def test_a_prompt_that_clearly_asks_for_a_template_gets_it(world: World) -> None:
    assert world.ask(prompt="make me a kanban board", template=None).template == "kanban"


@pytest.mark.parametrize(
    ("asked", "code"),
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
        ({"ttl_s": 24 * HOUR_S + 1}, "ttl_out_of_range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_is_not_in_order_is_refused_before_anything_is_written(
    world: World, asked: dict[str, Any], code: str
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        world.ask(**asked)
    assert caught.value.code == code
    field = str(caught.value.detail["field"])
    assert any(name.startswith(field) for name in asked)
    assert world.store.sessions.list() == []
    assert world.queue.nudges == []


@pytest.mark.parametrize(
    "prompt",
    ["x" * PROMPT_MAX_BYTES, "line 1\n\tline 2\r\n", "une liste 做得好 🚀", "<script>", "'; --"],
    ids=["as long as it may be", "lines", "unicode", "markup", "quotes"],
)
def test_any_plain_text_is_a_prompt(world: World, prompt: str) -> None:
    assert world.ask(prompt=prompt, template=None).prompt == prompt.strip()


@pytest.mark.parametrize("who", [VISITOR, PRO, OPERATOR], ids=lambda who: who.tier)
def test_each_tier_may_live_as_long_as_its_limit_says(world: World, who: Principal) -> None:
    most = LIMITS[who.tier].ttl_max_s
    made = world.ask(who, ttl_s=most)
    assert made.expires_at == later(most, made.created_at)
    with pytest.raises(errors.InvalidInput) as caught:
        world.ask(who, ttl_s=most + 1)
    assert caught.value.detail["max_s"] == most


def test_without_a_claude_key_only_templates_can_be_had(world: World) -> None:
    world.policy = Policy(can_generate=False)
    assert world.ask(prompt="a todo list", template=None).template == "todo"
    with pytest.raises(errors.InvalidInput) as caught:
        world.ask(prompt="a tide calendar for Brest", template=None)
    assert caught.value.code == "generation_unavailable"
    assert "kanban" in str(caught.value)


# Quota and repetition


def test_a_user_has_at_most_so_many_sessions_at_once(world: World) -> None:
    most = LIMITS[Tier.FREE].sessions_max
    made = [world.ask() for _ in range(most)]
    with pytest.raises(errors.LimitReached) as caught:
        world.ask()
    assert caught.value.detail["limit"] == most
    assert world.ask(STRANGER).user_id == STRANGER.user_id

    world.want_gone(made[0])
    world.converge(made[0])
    assert world.state(made[0]) is SessionState.DESTROYED
    world.ask()


def test_a_repeated_request_gives_the_session_that_was_made(world: World) -> None:
    first = world.ask(idempotency_key="key-1")
    world.queue.nudges.clear()
    assert world.ask(idempotency_key="key-1").id == first.id
    assert world.queue.nudges == []
    assert world.ask(idempotency_key="key-2").id != first.id
    assert world.ask(STRANGER, idempotency_key="key-1").id != first.id


def test_a_repetition_never_counts_against_the_quota(world: World) -> None:
    first = world.ask(idempotency_key="key-1")
    for _ in range(LIMITS[Tier.FREE].sessions_max - 1):
        world.ask()
    assert world.ask(idempotency_key="key-1").id == first.id


@pytest.mark.parametrize("other", [{"template": "snake"}, {"prompt": "x"}, {"ttl_s": 600}])
def test_a_key_that_was_used_for_something_else_is_a_conflict(
    world: World, other: dict[str, Any]
) -> None:
    world.ask(idempotency_key="key-1")
    with pytest.raises(errors.Conflict) as caught:
        world.ask(idempotency_key="key-1", **other)
    assert caught.value.code == "idempotency_conflict"


# Looking


def test_owner_and_operator_see_a_session_and_nobody_else_does(world: World) -> None:
    made = world.ask()
    assert requests.get(world.deps, VISITOR, made.id) == made
    assert requests.get(world.deps, OPERATOR, made.id) == made
    unknown = ids.new_session_id()
    said = set()
    for who, session_id in ((STRANGER, made.id), (OPERATOR, unknown), (VISITOR, "' OR 1=1")):
        with pytest.raises(errors.NotFound) as caught:
            requests.get(world.deps, who, session_id)
        said.add((caught.value.code, str(caught.value)))
    assert said == {("session_unknown", "there is no such session")}


def test_paying_for_the_operator_tier_makes_nobody_an_operator(world: World) -> None:
    made = world.ask()
    rich = replace(OPERATOR, role=Role.USER)
    with pytest.raises(errors.NotFound):
        requests.get(world.deps, rich, made.id)
