"""The whole conversation, with the real SDK, a scripted model and a small home in between."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent.generator.main import generate
from agent.generator.model import Clock
from agent.generator.order import Order
from agent.limits import Limits
from agent.protocol import AssignmentFailed, Said

from tests.fakes.fake_agent import FakeAgent
from tests.fakes.fake_home import SESSION_TOKEN, FakeHome
from tests.fakes.messages_api import MessagesApi
from tests.fakes.messages_scripts import (
    CallsTurn,
    Cut,
    ErrorTurn,
    MalformedToolInput,
    MaxTokens,
    Refusal,
    Stall,
    TextTurn,
    ToolTurn,
    Turn,
    UnfinishedCall,
)

PAGE = CallsTurn(
    calls=[
        ("write_file", {"path": "spawn.json", "content": '{"kind": "static"}'}),
        ("write_file", {"path": "index.html", "content": "<h1>hello</h1>"}),
    ]
)
BUDGET = ErrorTurn(
    status=402, type="billing_error", message="nothing is left today", code="budget_exhausted"
)
FINISH = ToolTurn(name="finish", input={"summary": "A page that says hello."})


class FakeTime:
    """Passes only while somebody sleeps, and `tick_s` with each look."""

    def __init__(self, tick_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.tick_s = tick_s
        self.slept: list[float] = []

    @property
    def clock(self) -> Clock:
        return Clock(now=self._now, sleep=self._sleep)

    def _now(self) -> float:
        self.now_s += self.tick_s
        return self.now_s

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture(scope="module")
def provider() -> Iterator[MessagesApi]:
    with MessagesApi() as server:
        yield server


@pytest.fixture
def home(provider: MessagesApi) -> Iterator[FakeHome]:
    folder = Path(tempfile.mkdtemp(prefix="home-"))  # a socket's path must be short
    with FakeHome(folder) as made:
        made.model_url = provider.url
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def model(provider: MessagesApi) -> MessagesApi:
    provider.reset()
    return provider


@pytest.fixture
def order(home: FakeHome, tmp_path: Path) -> Order:
    return Order(
        socket=str(home.socket_path),
        folder=str(tmp_path),
        token=SESSION_TOKEN,
        wish="a page",
        conversation=(),
        model="claude-sonnet-5-5",
        max_tokens=4000,
        expected_output_tokens=500,
        limits=Limits(),
    )


@pytest.fixture
def agent(tmp_path: Path) -> FakeAgent:
    return FakeAgent(tmp_path)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def outcome(order: Order, agent: FakeAgent, time: FakeTime) -> str:
    """The summary, or the failure's code and message."""
    try:
        return generate(order, agent, time.clock)
    except AssignmentFailed as failure:
        return f"{failure.code}: {failure.message}"


def told(model: MessagesApi, at: int) -> list[dict[str, Any]]:
    """The last message of one request."""
    content: list[dict[str, Any]] = model.requests[at].body["messages"][-1]["content"]
    return content


def test_the_key_is_the_sessions_token_and_tools_and_prompt_are_cached(
    order: Order, agent: FakeAgent, time: FakeTime, home: FakeHome, model: MessagesApi
) -> None:
    model.play(PAGE, ToolTurn(name="start_app", input={}), FINISH)

    assert outcome(order, agent, time) == "A page that says hello."
    assert model.totals.calls == 3
    first, _, last = (request.body for request in model.requests)
    assert first["system"][0]["cache_control"] == {"type": "ephemeral"}
    marked = [
        at
        for at, message in enumerate(last["messages"])
        if any("cache_control" in block for block in message["content"])
    ]
    assert marked == [2, 4]  # the last two of the user's; four marks are all that the API takes
    assert model.totals.cache_read_input_tokens > model.totals.cache_creation_input_tokens


def test_a_change_shows_the_conversation_the_files_and_the_wish(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<p>first</p>")
    (tmp_path / "spawn.json").write_text('{"kind": "static"}')
    edit = {"path": "index.html", "old_text": "first", "new_text": "second"}
    model.play(ToolTurn(name="edit_file", input=edit), FINISH)
    said = (Said(role="user", text="a page"), Said(role="assistant", text="It says first."))
    outcome(replace(order, wish="say second", conversation=said), agent, time)

    before, files, wish = (block["text"] for block in told(model, 0))
    assert "user: a page\n\nassistant: It says first." in before
    assert '<file path="index.html">\n<p>first</p>\n</file>' in files
    assert wish.endswith("say second")
    assert (tmp_path / "index.html").read_text() == "<p>second</p>"


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (TextTurn(text="What colour?"), "write the app with the tools"),
        (MalformedToolInput(name="write_file"), "no valid JSON"),
        (UnfinishedCall(), "never finished"),
        (MaxTokens(turn=ToolTurn(name="write_file", input={"path": "x" * 99})), "Write smaller"),
        (MaxTokens(turn=PAGE), "Write smaller"),
        (ToolTurn(name="finish", input={"summary": "Done."}), "This is no app yet"),
    ],
)
def test_an_answer_of_no_use_gets_a_hint_and_the_next_one_counts(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, turn: Turn, says: str
) -> None:
    model.play(turn, PAGE, FINISH)

    assert outcome(order, agent, time) == "A page that says hello."
    assert says in str(told(model, 1))


def test_an_app_that_is_announced_in_words_is_checked_and_taken(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi
) -> None:
    agent.problems = ["exited with status 1"]
    model.play(PAGE, TextTurn(text="It is done."), TextTurn(text="Now it is."))

    assert outcome(order, agent, time) == "Now it is."
    assert "Not finished: The app exited with status 1." in str(told(model, 2))


def test_the_fourth_bad_health_is_the_end_and_names_the_last_reason(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi
) -> None:
    agent.problems = [f"exited with status {number}" for number in range(1, 9)]
    model.play(PAGE)
    model.always(FINISH)

    said = outcome(order, agent, time)
    assert said.startswith("app_not_healthy: The app is still not healthy after 3 repairs: ")
    assert "The app exited with status 4." in said
    assert model.totals.calls == 5
    messages = [one["message"] for one in agent.said if one["event"] == "progress"]
    assert "mending: The app exited with status 3." in messages


def test_finished_calls_of_an_answer_that_broke_off_are_kept(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, tmp_path: Path
) -> None:
    more = CallsTurn(calls=[*PAGE.calls, ("write_file", {"path": "x", "content": "x" * 500})])
    model.play(Cut(after_events=25, turn=more), FINISH)

    assert outcome(order, agent, time) == "A page that says hello."
    assert not (tmp_path / "x").exists()
    answers = told(model, 1)
    assert [block["type"] for block in answers] == ["tool_result", "tool_result", "text"]


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

    said = outcome(replace(order, limits=Limits(seconds=100_000)), agent, time)
    assert said == "A page that says hello."
    messages = [one["message"] for one in agent.said if one["event"] == "progress"]
    assert "the model said nothing for 180 s; asking again" in messages


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

    said = outcome(replace(order, limits=Limits(seconds=300)), agent, time)
    assert "within 300 seconds" in said


@pytest.mark.parametrize("failure", [ErrorTurn(retry_after=0.01), BUDGET])
def test_a_good_app_is_taken_when_no_more_answers_come(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, failure: ErrorTurn
) -> None:
    model.play(CallsTurn(calls=[*PAGE.calls, ("start_app", {})]))
    model.always(failure)

    assert outcome(order, agent, time) == "The app is ready."


# httpcore2 leaves the socket of a failed connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_home_that_is_away_is_a_provider_that_is_unavailable(
    order: Order, agent: FakeAgent, time: FakeTime
) -> None:
    said = outcome(replace(order, socket="/nowhere.sock"), agent, time)

    assert said.startswith("provider_unavailable: no connection")
    assert len(time.slept) == 5
    assert 15 <= sum(time.slept) <= 30


def test_progress_never_falls_over_a_whole_conversation(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi
) -> None:
    model.play(PAGE, ErrorTurn(after_events=6), FINISH)
    outcome(order, agent, time)

    percents = [one["progress"] for one in agent.said if one["event"] == "progress"]
    assert all(before <= after for before, after in itertools.pairwise(percents))
    assert percents[0] == 31
    assert percents[-1] < 89
