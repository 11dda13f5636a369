"""The whole conversation, with the real SDK, a scripted model and a small home in between."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from agent.generator.order import Order

from orchestrator.contract.wire import Message, Role
from tests.fakes.agents.agent import FakeAgent
from tests.fakes.agents.home import FakeHome
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import (
    CallsTurn,
    Cut,
    ErrorTurn,
    MalformedToolInput,
    MaxTokens,
    TextTurn,
    ToolTurn,
    Turn,
    UnfinishedCall,
)
from tests.unit.agent.generator.talk import FINISH, PAGE, FakeTime, outcome, told


def test_the_key_is_the_sessions_token_and_tools_and_prompt_are_cached(
    order: Order, agent: FakeAgent, time: FakeTime, home: FakeHome, model: MessagesApi
) -> None:
    model.play(PAGE, ToolTurn(name="start_app", input={}), FINISH)

    assert outcome(order, agent, time) == "A page that says hello."
    assert model.totals.calls == 3
    first, _, last = (request.body for request in model.requests)
    assert first["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert "a body of at most 7 MiB," in first["system"][0]["text"]
    assert "{{" not in first["system"][0]["text"]
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
    messages = (
        Message(role=Role.USER, text="a page"),
        Message(role=Role.ASSISTANT, text="It says first."),
    )
    outcome(replace(order, request="say second", conversation=messages), agent, time)

    before, files, request = (block["text"] for block in told(model, 0))
    assert "user: a page\n\nassistant: It says first." in before
    assert '<file path="index.html">\n<p>first</p>\n</file>' in files
    assert request.endswith("say second")
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

    result = outcome(order, agent, time)
    assert result.startswith("app_not_healthy: The app is still not healthy after 3 repairs: ")
    assert "The app exited with status 4." in result
    assert model.totals.calls == 5
    messages = [event["message"] for event in agent.sent if event["event"] == "progress"]
    assert "fixing: The app exited with status 3." in messages


def test_finished_calls_of_an_answer_that_broke_off_are_kept(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi, tmp_path: Path
) -> None:
    more = CallsTurn(calls=[*PAGE.calls, ("write_file", {"path": "x", "content": "x" * 500})])
    model.play(Cut(after_events=25, turn=more), FINISH)

    assert outcome(order, agent, time) == "A page that says hello."
    assert not (tmp_path / "x").exists()
    answers = told(model, 1)
    assert [block["type"] for block in answers] == ["tool_result", "tool_result", "text"]


def test_progress_never_falls_over_a_whole_conversation(
    order: Order, agent: FakeAgent, time: FakeTime, model: MessagesApi
) -> None:
    model.play(PAGE, ErrorTurn(after_events=6), FINISH)
    outcome(order, agent, time)

    percents = [event["progress"] for event in agent.sent if event["event"] == "progress"]
    assert all(before <= after for before, after in itertools.pairwise(percents))
    assert percents[0] == 31
    assert percents[-1] < 89
