"""The scripted Messages API over several turns, with the real SDK: tools, cache, counts, faults."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest
from agent.generator.tools import TOOLS

from tests.fakes.llm.messages_api import MessagesApi, Totals
from tests.fakes.llm.messages_scripts import (
    CallsTurn,
    Cut,
    Stall,
    TextTurn,
    ToolTurn,
    UnfinishedCall,
)

MODEL = "claude-sonnet-5-5"
MARK = {"type": "ephemeral"}


def request_for(prompt: str = "A page", **fields: Any) -> dict[str, Any]:
    """The body of a request with one prompt."""
    messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    return {"model": MODEL, "max_tokens": 8000, "messages": messages, **fields}


def stream_events(client: anthropic.Anthropic, **body: Any) -> list[str]:
    with client.messages.create(**body, stream=True) as stream:
        return [event.type for event in stream]


def talk(client: anthropic.Anthropic, prompt: str, result: str = "Good.") -> list[list[str]]:
    """Answer calls until no more arrive. Returns the names of each turn's calls."""
    body = request_for(prompt, tools=TOOLS)
    turns: list[list[str]] = []
    while True:
        answer = client.messages.create(**body)
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls or len(turns) > 5:
            return turns
        turns.append([call.name for call in calls])
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": result} for call in calls
        ]
        body["messages"] += [
            {"role": "assistant", "content": [block.to_dict() for block in answer.content]},
            {"role": "user", "content": results},
        ]
        if turns[-1] == ["finish"]:
            return turns


def test_canned_answers_build_an_app_with_the_agents_tools(client: anthropic.Anthropic) -> None:
    written, started, finished = talk(client, "A python list")

    assert set(written) == {"write_file"}
    assert (started, finished) == (["start_app"], ["finish"])


def test_canned_answers_change_an_app_when_its_files_are_shown(client: anthropic.Anthropic) -> None:
    prompt = 'The app as it is:\n<file path="index.html">...</file>\nChange it as follows:\n\nBlue'

    assert talk(client, prompt) == [["edit_file"], ["start_app"], ["finish"]]


def test_several_calls_come_in_one_answer_in_their_order(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    calls = [("write_file", {"path": "a"}), ("run", {"command": "ls"})]
    api.always(CallsTurn(calls=calls, text="Both.", thinking="Hm."))
    whole = client.messages.create(**request_for())
    with client.messages.stream(**request_for()) as stream:
        streamed = stream.get_final_message()

    for message in (whole, streamed):
        kinds = [block.type for block in message.content]
        assert kinds == ["thinking", "text", "tool_use", "tool_use"]
        assert [block.input for block in message.content[2:]] == [call[1] for call in calls]  # type: ignore[union-attr]


def test_a_scenario_belongs_to_the_conversation_that_begins_with_its_phrase(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(TextTurn(text="anybody"))
    api.play_for("tide pools", TextTurn(text="one"), TextTurn(text="two"))

    def answer_to(prompt: str) -> str:
        return client.messages.create(**request_for(prompt)).content[0].text  # type: ignore[union-attr]

    assert answer_to("A page about tide pools") == "one"
    assert answer_to("A page") == "anybody"
    assert answer_to("More tide pools") == "two"


def test_a_call_that_is_never_finished_has_no_end_in_the_stream(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(UnfinishedCall())
    events = stream_events(client, **request_for())

    assert "content_block_stop" not in events
    assert events[-2:] == ["message_delta", "message_stop"]


def test_a_stall_is_nothing_but_pings_and_then_a_cut(api: MessagesApi) -> None:
    api.play(Stall(after_events=4, pings=7, turn=TextTurn(text="x" * 500)))
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    lines: list[str] = []
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        httpx2.Client(trust_env=False) as web,
        web.stream(
            "POST", f"{api.url}/v1/messages", json=request_for(stream=True), headers=headers
        ) as answer,
    ):
        lines.extend(answer.iter_lines())

    kinds = [json.loads(line[5:])["type"] for line in lines if line.startswith("data:")]
    assert kinds[4:] == ["ping"] * 7


def test_what_was_marked_is_written_to_the_cache_once_and_read_afterwards(
    client: anthropic.Anthropic,
) -> None:
    system = [{"type": "text", "text": "Be brief. " * 400, "cache_control": MARK}]
    first = client.messages.create(**request_for("One", system=system)).usage
    second = client.messages.create(**request_for("Two", system=system)).usage
    other = client.messages.create(**request_for("Two", system=system[0]["text"])).usage

    written_tokens, read_tokens = first.cache_creation_input_tokens, second.cache_read_input_tokens
    assert written_tokens == read_tokens
    assert (read_tokens or 0) > 900
    assert first.cache_read_input_tokens == second.cache_creation_input_tokens == 0
    assert (other.cache_read_input_tokens, other.cache_creation_input_tokens) == (0, 0)
    assert other.input_tokens > 900


@pytest.mark.parametrize(("between", "is_hit"), [(1, True), (30, False)])
def test_a_mark_that_moves_on_reads_what_was_written_up_to_twenty_blocks_before(
    client: anthropic.Anthropic, between: int, is_hit: bool
) -> None:
    marked = {"type": "text", "text": f"Tell me of {between}. " * 50, "cache_control": MARK}
    body = request_for()
    body["messages"][0]["content"] = [marked]
    written_tokens = client.messages.create(**body).usage.cache_creation_input_tokens
    body["messages"][0]["content"] = [{"type": "text", "text": marked["text"]}]
    blocks = [{"type": "text", "text": "And now?"}] * between
    body["messages"] += [
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        {"role": "user", "content": [*blocks, {**blocks[0], "cache_control": MARK}]},
    ]

    assert client.messages.create(**body).usage.cache_read_input_tokens == is_hit * (
        written_tokens or 0
    )


def test_totals_count_what_was_answered_and_nothing_that_was_refused(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(TextTurn(text="x" * 400), Cut(after_events=3, turn=TextTurn(text="y" * 400)))
    usage = client.messages.create(**request_for()).usage
    with pytest.raises((httpx2.HTTPError, anthropic.APIConnectionError)):
        stream_events(client, **request_for())
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**request_for() | {"model": "gpt-9"})

    assert api.totals == Totals(
        calls=2, input_tokens=2 * usage.input_tokens, output_tokens=2 * usage.output_tokens
    )
    api.reset()
    assert api.totals == Totals()


USE = {"type": "tool_use", "id": "t1", "name": "run", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
THINKING = {"type": "thinking", "thinking": "x", "signature": "x"}


@pytest.mark.parametrize(
    ("answer", "reply", "fault"),
    [
        ([USE], [{"type": "text", "text": "And?"}], "without `tool_result`"),
        ([{"type": "text", "text": "x"}], [RESULT], "unexpected `tool_use_id`"),
        ([THINKING], [{"type": "text", "text": "x"}], "cannot be `thinking`"),
    ],
)
def test_calls_and_results_must_answer_each_other(
    client: anthropic.Anthropic, answer: list[Any], reply: list[Any], fault: str
) -> None:
    body = request_for()
    body["messages"] += [
        {"role": "assistant", "content": answer},
        {"role": "user", "content": reply},
    ]
    with pytest.raises(anthropic.BadRequestError, match=fault):
        client.messages.create(**body)


def test_a_turn_that_calls_one_tool_is_the_same_as_one_of_several_with_one(
    api: MessagesApi, client: anthropic.Anthropic
) -> None:
    api.play(
        ToolTurn(name="run", input={"command": "ls"}),
        CallsTurn(calls=[("run", {"command": "ls"})]),
    )
    single, several = (
        client.messages.create(**request_for()).content[0].to_dict() for _ in range(2)
    )

    assert {**single, "id": ""} == {**several, "id": ""}
