"""The conversation when the service fails, falls silent or refuses, and when limits are reached."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agent.generator.order import Order

from orchestrator.contract.wire import Limits
from tests.fakes.agents.agent import FakeAgent
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import (
    CallsTurn,
    Cut,
    ErrorTurn,
    MalformedToolInput,
    Refusal,
    Stall,
    TextTurn,
    ToolTurn,
    Turn,
)
from tests.unit.agent.generator.talk import BUDGET, FINISH, PAGE, FakeTime, outcome

EMPTY = ErrorTurn(
    status=402, type="billing_error", message="KEY has no credit", code="provider_no_credit"
)


@pytest.mark.parametrize(
    "turn",
    [
        Cut(after_events=0),
        Cut(after_events=4),
        ErrorTurn(after_events=3),
        ErrorTurn(status=500, type="api_error"),
        ErrorTurn(status=529),
        Stall(after_events=4, pings=5),
    ],
)
def test_an_answer_that_broke_off_with_nothing_finished_is_asked_for_again(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, turn: Turn
) -> None:
    model.play(turn, PAGE, FINISH)

    assert outcome(order, agent, time) == "A page that says hello."
    first, again = model.requests[0].body, model.requests[1].body
    assert again == first
    assert len(time.slept) == 1


def test_the_service_says_when_to_come_back(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi
) -> None:
    model.play(ErrorTurn(status=429, type="rate_limit_error", retry_after=7.5), PAGE, FINISH)

    assert outcome(order, agent, time) == "A page that says hello."
    assert time.slept == [7.5]


def test_nobody_waits_longer_than_the_session_lasts(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi
) -> None:
    model.always(ErrorTurn(status=429, type="rate_limit_error", retry_after=3600))

    assert outcome(order, agent, time).startswith("provider_unavailable: the model is busy")
    assert time.slept == []


def test_a_model_that_says_nothing_but_pings_is_given_up_in_time(
    order: Order, agent: FakeAgent, model: MessagesApi
) -> None:
    time = FakeTime(tick_s=10.0)
    model.play(Stall(after_events=4, pings=500), PAGE, FINISH)

    result = outcome(replace(order, limits=Limits(seconds=100_000)), agent, time)
    assert result == "A page that says hello."
    messages = [event["message"] for event in agent.sent if event["event"] == "progress"]
    assert "the model said nothing for 180 s; asking again" in messages


def test_a_model_that_reads_for_long_is_waited_for_as_long_as_home_says(
    order: Order, agent: FakeAgent, model: MessagesApi
) -> None:
    time = FakeTime(tick_s=10.0)
    model.play(Stall(after_events=4, pings=50), PAGE, FINISH)

    limits = Limits(seconds=100_000, silence_seconds=90_000)
    assert outcome(replace(order, limits=limits), agent, time) == "A page that says hello."
    messages = [event["message"] for event in agent.sent if event["event"] == "progress"]
    assert not [message for message in messages if "said nothing" in message]


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        (Refusal(text="I'd rather not."), "refused: I'd rather not."),
        (Refusal(text=""), "refused: The request was declined."),
        (ErrorTurn(status=401, type="authentication_error"), "provider_auth"),
        (ErrorTurn(status=403, type="permission_error"), "provider_auth"),
        (ErrorTurn(status=400, type="invalid_request_error"), "generation_failed"),
        (ErrorTurn(status=529), "provider_unavailable: the model is busy: Overloaded"),
        (ErrorTurn(status=402, type="billing_error"), "provider_auth"),
        (BUDGET, "budget_exhausted: nothing is left today"),
        (EMPTY, "provider_no_credit: KEY has no credit"),
        (replace(EMPTY, after_events=1), "provider_no_credit: KEY has no credit"),
        (TextTurn(text="Hm."), "generation_failed: the model did nothing of use"),
        (MalformedToolInput(), "generation_failed"),
    ],
)
def test_each_way_to_fail_has_its_code(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, turn: Turn, code: str
) -> None:
    model.always(turn)

    assert outcome(order, agent, time).startswith(code)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(turns=3), "within 3 turns"),
        (Limits(output_tokens=50), "within 50 tokens"),
    ],
)
def test_a_limit_that_is_reached_ends_the_generation_unless_the_app_is_good_as_it_is(
    order: Order,
    agent: FakeAgent,
    time: FakeTime,
    model: MessagesApi,
    limits: Limits,
    says: str,
) -> None:
    bounded = replace(order, limits=limits)
    model.always(ToolTurn(name="list_files", input={}, text="Let me look. " * 30))
    assert says in outcome(bounded, agent, time)

    model.reset()
    start = CallsTurn(calls=[*PAGE.calls, ("start_app", {})], text="Now. " * 50)
    model.play(start)
    model.always(ToolTurn(name="list_files", input={}))
    assert outcome(bounded, agent, time) == "The app is ready."


def test_time_that_is_up_ends_a_stream_in_its_middle(
    order: Order, agent: FakeAgent, model: MessagesApi
) -> None:
    time = FakeTime(tick_s=10.0)
    model.always(TextTurn(text="On and on and on. " * 100))

    result = outcome(replace(order, limits=Limits(seconds=300)), agent, time)
    assert "within 300 seconds" in result


@pytest.mark.parametrize("failure", [ErrorTurn(retry_after=0.01), BUDGET])
def test_a_good_app_is_taken_when_no_more_answers_come(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, failure: ErrorTurn
) -> None:
    model.play(CallsTurn(calls=[*PAGE.calls, ("start_app", {})]))
    model.always(failure)

    assert outcome(order, agent, time) == "The app is ready."


def test_a_home_that_is_away_is_a_provider_that_is_unavailable(
    order: Order, agent: FakeAgent, time: FakeTime
) -> None:
    result = outcome(replace(order, socket="/nowhere.sock"), agent, time)

    assert result.startswith("provider_unavailable: no connection")
    assert len(time.slept) == 5
    assert 15 <= sum(time.slept) <= 30
