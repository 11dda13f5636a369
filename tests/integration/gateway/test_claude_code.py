"""The program Claude Code does a job through the gateway, with either kind of provider.

It runs in a network of its own, which has nothing but the gateway. deploy/install.sh installs it;
CLAUDE_CODE names another one to try.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.sessions.session import Session
from tests.compat.answers import chunk, completions
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import TextTurn, ToolTurn
from tests.fakes.llm.odd_provider import OddProvider, Reply
from tests.integration.gateway import loopback
from tests.integration.gateway.loopback import Ended
from tests.integration.gateway.world import KEY, MODEL, GatewayWorld, gateway_for, settings_for

INSTALLED = Path(__file__).parents[2] / "claude_code" / "node_modules" / ".bin" / "claude"
PROGRAM = os.environ.get("CLAUDE_CODE", str(INSTALLED))
ARGUMENTS = ("--model", MODEL, "--output-format", "json", "--allowedTools", "Write")
SWITCHES = {
    # No updates, no telemetry, no reports of errors.
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    # Some versions reserve so much that no session's budget is enough at the dearest price.
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "8000",
}

WORDS = "It is written."
USAGE = {"prompt_tokens": 900, "completion_tokens": 40}


@dataclass(kw_only=True)
class Desk:
    """Where the program works: a folder, and a home without settings."""

    folder: Path
    home: Path

    @property
    def note(self) -> Path:
        return self.folder / "note.txt"

    @property
    def call(self) -> Mapping[str, str]:
        """The input of the tool Write that the model asks for."""
        return {"file_path": str(self.note), "content": "Hello, Zoë"}

    def run(self, world: GatewayWorld, session: Session, prompt: str) -> Ended:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "ANTHROPIC_AUTH_TOKEN": world.token(session),
            **SWITCHES,
        }
        return loopback.run(
            [PROGRAM, "-p", prompt, *ARGUMENTS], world.socket, environment, self.folder
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    assert Path(PROGRAM).exists(), "run deploy/install.sh test"
    desk = Desk(folder=tmp_path / "desk", home=tmp_path / "home")
    desk.folder.mkdir()
    desk.home.mkdir()
    return desk


@pytest.fixture
def api() -> Iterator[MessagesApi]:
    with MessagesApi(key=KEY) as server:
        yield server


@pytest.fixture
def world(api: MessagesApi, tmp_path: Path, migrated_sqlite: Path) -> Iterator[GatewayWorld]:
    with gateway_for(settings_for(tmp_path, api), migrated_sqlite) as gateway:
        yield gateway


def result_of(ended: Ended) -> Mapping[str, Any]:
    """What the program prints at the end of a job that went well."""
    assert ended.status == 0, ended
    result: Mapping[str, Any] = json.loads(ended.output)
    assert (result["subtype"], result["is_error"]) == ("success", False), ended
    return result


def text_of(content: Any) -> str:
    """The text of content, with that of tool results."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or text_of(block.get("content", "")) for block in content)


def test_a_tool_call_runs_and_its_result_comes_back(
    world: GatewayWorld, api: MessagesApi, desk: Desk
) -> None:
    api.play(
        ToolTurn(name="Write", input=desk.call, text="I write it.", thinking="A short note."),
        TextTurn(text=WORDS),
    )
    session = world.session()
    ended = desk.run(world, session, "Write a note.")
    assert result_of(ended)["result"] == WORDS
    assert desk.note.read_text("utf-8") == desk.call["content"]
    assert ended.asked_outside == []
    first, second = api.requests
    assert (first.path, first.body["stream"]) == ("/v1/messages", True)
    assert "claude-code-20250219" in first.headers["anthropic-beta"].split(",")
    ((answer, results),) = [
        pair
        for pair in itertools.pairwise(second.body["messages"])
        if pair[0]["role"] == "assistant"
    ]
    kinds = [block["type"] for block in answer["content"]]
    assert kinds == ["thinking", "text", "tool_use"]
    assert answer["content"][2]["input"] == desk.call
    (result,) = [block for block in results["content"] if block["type"] == "tool_result"]
    assert result["tool_use_id"] == answer["content"][2]["id"]
    assert str(desk.note) in text_of(result["content"])
    totals = api.totals
    sent = totals.input_tokens + totals.cache_creation_input_tokens + totals.cache_read_input_tokens
    ((provider, calls, tokens, micro_usd),) = world.accounts(session)
    assert (provider, calls, tokens) == ("anthropic", 2, sent + totals.output_tokens)
    assert micro_usd > 0


def test_all_that_it_counts_at_once_is_counted_at_the_first_try(
    world: GatewayWorld, api: MessagesApi, desk: Desk
) -> None:
    session = world.session()
    ended = desk.run(world, session, "/context")
    assert "System tools" in result_of(ended)["result"]
    assert ended.asked_outside == []
    assert {request.path for request in api.requests} == {"/v1/messages/count_tokens"}
    assert {request.headers["x-stainless-retry-count"] for request in api.requests} == {"0"}
    assert len(api.requests) > 4
    assert world.accounts(session) == []


def test_a_tool_call_of_an_openai_compatible_endpoint_runs_too(
    tmp_path: Path, migrated_sqlite: Path, desk: Desk
) -> None:
    arguments = json.dumps(desk.call)

    def answer(body: Mapping[str, Any], _: int) -> Reply:
        if any(message["role"] == "tool" for message in body["messages"]):
            return completions(chunk(content=WORDS), chunk("stop"), chunk(usage=USAGE))
        pieces = (arguments[:9], arguments[9:30], arguments[30:])
        return completions(
            chunk(content="I write it."),
            chunk(tool_calls=[{"index": 0, "id": "call_a", "function": {"name": "Write"}}]),
            *(
                chunk(tool_calls=[{"index": 0, "function": {"arguments": piece}}])
                for piece in pieces
            ),
            chunk("tool_calls"),
            chunk(usage=USAGE),
        )

    with OddProvider(answer) as provider:
        changes = {
            "anthropic_api_key": "",
            "openai_base_url": provider.url + "/v1",
            "openai_model": "gpt-x",
        }
        settings = settings_for(tmp_path, provider, **changes)
        with gateway_for(settings, migrated_sqlite) as world:
            session = world.session()
            ended = desk.run(world, session, "Write a note.")
            accounts = world.accounts(session)
    assert result_of(ended)["result"] == WORDS
    assert desk.note.read_text("utf-8") == desk.call["content"]
    assert ended.asked_outside == []
    first, second = provider.bodies
    check_translation(first)
    ((called, result),) = [
        pair for pair in itertools.pairwise(second["messages"]) if "tool_calls" in pair[0]
    ]
    assert called["tool_calls"][0]["function"] == {"name": "Write", "arguments": arguments}
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_a")
    assert str(desk.note) in result["content"]
    ((name, calls, tokens, _),) = accounts
    assert (name, calls, tokens) == ("openai", 2, 2 * sum(USAGE.values()))


def check_translation(body: Mapping[str, Any]) -> None:
    """Whether the endpoint got the system prompt and the tools, and nothing that it can't know."""
    system, *others = body["messages"]
    assert system["role"] == "system"
    assert len(system["content"]) > 5_000
    assert "Write a note." in json.dumps([each for each in others if each["role"] == "user"])
    (write,) = [tool for tool in body["tools"] if tool["function"]["name"] == "Write"]
    assert "file_path" in write["function"]["parameters"]["properties"]
    known = {"model", "messages", "tools", "stream", "stream_options", "max_completion_tokens"}
    assert set(body) - known == set()
    assert names_in(body["messages"]).isdisjoint({"cache_control", "thinking"})


def names_in(value: object) -> set[str]:
    """The names of all fields, at any depth."""
    if isinstance(value, Mapping):
        return set(value).union(*map(names_in, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return set().union(*map(names_in, value))
    return set()


def test_what_a_program_asks_of_other_servers_is_refused_and_written_down(
    world: GatewayWorld, desk: Desk
) -> None:
    script = """
import socket, urllib.error, urllib.request
try:
    urllib.request.urlopen("https://example.com/")
except urllib.error.URLError as error:
    print(error.reason)
try:
    socket.create_connection(("192.0.2.1", 443))
except OSError as error:
    print(error.strerror)
"""
    environment = {"PATH": os.environ["PATH"]}
    ended = loopback.run([sys.executable, "-c", script], world.socket, environment, desk.folder)
    assert ended.output.splitlines() == [
        "Tunnel connection failed: 403 Forbidden",
        "Network is unreachable",
    ]
    (asked,) = ended.asked_outside
    assert asked.startswith("CONNECT example.com:443 ")
