"""What users and operators do with sessions: ask, look, extend, end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.access import (
    HOUR_S,
    LIMITS,
    PROMPT_MAX_BYTES,
    TTL_DEFAULT_S,
    Principal,
    Queue,
    Role,
)
from orchestrator.domain.session import SessionState, Tier, Wanted
from orchestrator.services import claims, sessions
from orchestrator.services.deps import Policy
from tests.fakes.queue import QueueThatIsAway
from tests.fakes.samples import later
from tests.unit.services.world import OPERATOR, VISITOR, RaceToWrite, World

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
    assert sessions.get(world.deps, VISITOR, made.id) == made
    assert sessions.get(world.deps, OPERATOR, made.id) == made
    unknown = ids.new_session_id()
    said = set()
    for who, session_id in ((STRANGER, made.id), (OPERATOR, unknown), (VISITOR, "' OR 1=1")):
        with pytest.raises(errors.NotFound) as caught:
            sessions.get(world.deps, who, session_id)
        said.add((caught.value.code, str(caught.value)))
    assert said == {("session_unknown", "there is no such session")}


def test_paying_for_the_operator_tier_makes_nobody_an_operator(world: World) -> None:
    made = world.ask()
    rich = replace(OPERATOR, role=Role.USER)
    with pytest.raises(errors.NotFound):
        sessions.get(world.deps, rich, made.id)


# Extending


def test_an_extension_counts_from_now(world: World) -> None:
    made = world.ask()
    world.clock.advance(100)
    extended = sessions.extend(world.deps, VISITOR, made.id, HOUR_S)
    assert extended.expires_at == later(HOUR_S, world.clock.now())
    assert f"session:{made.id}" in world.events.sent


def test_an_extension_that_came_first_beats_the_expiry(world: World) -> None:
    made = world.ask(ttl_s=60)
    world.clock.advance(61)
    sessions.extend(world.deps, VISITOR, made.id, HOUR_S)
    assert world.store.sessions.expire(world.clock.now(), 10) == []
    assert world.session(made).wanted is Wanted.RUNNING


def test_an_expiry_that_came_first_is_never_taken_back(world: World) -> None:
    made = world.ask(ttl_s=60)
    world.clock.advance(61)
    assert len(world.store.sessions.expire(world.clock.now(), 10)) == 1
    with pytest.raises(errors.Conflict) as caught:
        sessions.extend(world.deps, VISITOR, made.id, HOUR_S)
    assert caught.value.code == "session_ending"


def test_what_has_ended_is_not_extended(world: World) -> None:
    made = world.ask()
    world.want_gone(made)
    world.converge(made)
    with pytest.raises(errors.Conflict):
        sessions.extend(world.deps, VISITOR, made.id, HOUR_S)


def test_an_extension_never_puts_off_a_recovery_that_is_due(world: World) -> None:
    world.host()
    ready = world.run(world.ask())
    due = world.save(ready, due_at=world.clock.now())  # as a diagnosis does
    sessions.extend(world.deps, VISITOR, ready.id, 2 * HOUR_S)
    assert world.session(ready).due_at == due.due_at


def test_a_running_app_that_was_extended_is_left_alone_until_its_new_end(world: World) -> None:
    world.host()
    ready = world.run(world.ask(ttl_s=600))
    sessions.extend(world.deps, VISITOR, ready.id, 2 * HOUR_S)
    world.clock.advance(700)
    world.converge(ready)
    found = world.session(ready)
    assert found.state is SessionState.READY
    assert found.due_at == found.expires_at


@pytest.mark.parametrize("ttl_s", [59, 24 * HOUR_S + 1])
def test_an_extension_has_the_limits_of_the_tier(world: World, ttl_s: int) -> None:
    made = world.ask()
    with pytest.raises(errors.InvalidInput):
        sessions.extend(world.deps, VISITOR, made.id, ttl_s)
    assert world.session(made) == made


# Ending


def test_an_end_is_written_and_looked_at(world: World) -> None:
    made = world.ask()
    world.queue.nudges.clear()
    ended = sessions.end(world.deps, VISITOR, made.id)
    assert (ended.wanted, ended.due_at) == (Wanted.GONE, world.clock.now())
    assert ended.state is SessionState.QUEUED, "only converge moves a session"
    assert world.queue.nudges == [(made.id, Queue.CRITICAL)]
    assert world.store.audit.list() == []


def test_to_end_twice_or_what_has_ended_is_no_error(world: World) -> None:
    made = world.ask()
    first = sessions.end(world.deps, VISITOR, made.id)
    assert sessions.end(world.deps, VISITOR, made.id) == first
    world.converge(made)
    world.queue.nudges.clear()
    assert sessions.end(world.deps, VISITOR, made.id).state is SessionState.DESTROYED
    assert world.queue.nudges == []


def test_an_operator_who_ends_somebody_elses_session_is_audited(world: World) -> None:
    made = world.ask()
    sessions.end(world.deps, OPERATOR, made.id)
    (entry,) = world.store.audit.list()
    assert (entry.actor, entry.action, entry.subject) == (
        OPERATOR.user_id,
        "session_killed",
        made.id,
    )


def extend(world: World, session_id: str) -> object:
    return sessions.extend(world.deps, VISITOR, session_id, HOUR_S).expires_at


def end(world: World, session_id: str) -> object:
    return sessions.end(world.deps, VISITOR, session_id).wanted


@pytest.mark.parametrize(
    ("change", "wanted"),
    [(extend, Wanted.RUNNING), (end, Wanted.GONE)],
)
def test_an_intent_that_loses_a_race_is_written_all_the_same(
    world: World, change: Callable[[World, str], object], wanted: Wanted
) -> None:
    made = world.ask()
    world.store = RaceToWrite(world.store, times=3)
    result = change(world, made.id)
    assert result in {world.session(made).expires_at, world.session(made).wanted}
    assert world.session(made).wanted is wanted
    assert world.session(made).revision == made.revision + 4


def test_a_stranger_changes_nothing(world: World) -> None:
    made = world.ask()
    with pytest.raises(errors.NotFound):
        sessions.extend(world.deps, STRANGER, made.id, HOUR_S)
    with pytest.raises(errors.NotFound):
        sessions.end(world.deps, STRANGER, made.id)
    assert world.session(made) == made


# The queue


def test_the_position_counts_who_is_before(world: World) -> None:
    first, second = world.ask(), world.ask()
    paying = world.ask(PRO)
    places = [sessions.queue_position(world.deps, one) for one in (paying, first, second)]
    assert places == [1, 2, 3]
    ended = sessions.end(world.deps, VISITOR, first.id)
    assert sessions.queue_position(world.deps, ended) is None
    assert sessions.queue_position(world.deps, second) == 2


def test_who_has_a_sandbox_waits_no_more(world: World) -> None:
    world.host()
    made = world.ask()
    world.converge(made)
    assert sessions.queue_position(world.deps, world.session(made)) is None


def test_a_newcomer_never_takes_the_room_that_an_earlier_one_waits_for(world: World) -> None:
    first, second, third = (world.ask() for _ in range(3))
    world.host(slots=2)
    world.converge(third)
    assert world.state(third) is SessionState.QUEUED
    for one in (second, first):
        world.converge(one)
        assert world.state(one) is SessionState.PROVISIONING
    world.converge(third)
    assert world.state(third) is SessionState.QUEUED


def test_a_session_between_two_attempts_holds_nobody_up(world: World) -> None:
    world.host(slots=1)
    first, second = world.ask(), world.ask()
    world.save(first, due_at=later(60))
    assert claims.its_turn(world.store, second, world.clock.now())
    world.converge(second)
    assert world.state(second) is SessionState.PROVISIONING


def test_paying_users_come_before_earlier_visitors(world: World) -> None:
    world.host(slots=1)
    visitor, paying = world.ask(), world.ask(PRO)
    world.converge(visitor)
    assert world.state(visitor) is SessionState.QUEUED
    world.converge(paying)
    assert world.state(paying) is SessionState.PROVISIONING
