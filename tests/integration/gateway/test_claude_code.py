"""The program Claude Code does a job through the gateway, with either kind of provider.

It runs in a network of its own, which has nothing but the gateway. deploy/install.sh installs it;
CLAUDE_CODE names another one to try.
"""

from __future__ import annotations

import base64
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
from tests.compat.answers import chunk, completions, piece
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import TextTurn, ToolTurn
from tests.fakes.llm.odd_provider import OddProvider, Reply
from tests.integration.gateway import loopback
from tests.integration.gateway.loopback import Ended
from tests.integration.gateway.world import KEY, MODEL, GatewayWorld, gateway_for, settings_for

INSTALLED = Path(__file__).parents[2] / "claude_code" / "node_modules" / ".bin" / "claude"
PROGRAM = os.environ.get("CLAUDE_CODE", str(INSTALLED))
ARGUMENTS = ("--model", MODEL, "--output-format", "json", "--allowedTools", "Read,Write")
SWITCHES = {
    # No updates, no telemetry, no reports of errors.
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    # Some versions reserve so much that no session's budget is enough at the dearest price.
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "8000",
}

WORDS = "It is written."
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
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
    def picture(self) -> Path:
        return self.folder / "picture.png"

    @property
    def call(self) -> Mapping[str, str]:
        """The input of the tool Write that the model asks for."""
        return {"file_path": str(self.note), "content": "Hello, Zoë"}

    def run(self, world: GatewayWorld, session: Session, prompt: str) -> Ended:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "CLAUDE_CODE_TMPDIR": str(self.home),
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


def test_tool_calls_of_an_openai_compatible_endpoint_run_too(
    tmp_path: Path, migrated_sqlite: Path, desk: Desk
) -> None:
    desk.picture.write_bytes(PICTURE)
    texts = ("the first one", "the second one")
    writes = [{"file_path": str(desk.folder / f"{text}.txt"), "content": text} for text in texts]
    reads = [{"file_path": str(desk.picture)}]
    steps = [
        called("Write", writes),
        called("Read", reads),
        completions(chunk(content=WORDS), chunk("stop"), chunk(usage=USAGE)),
    ]
    with OddProvider(lambda _, number: steps[number]) as provider:
        changes = {
            "anthropic_api_key": "",
            "openai_base_url": provider.url + "/v1",
            "openai_model": "gpt-x",
        }
        settings = settings_for(tmp_path, provider, **changes)
        with gateway_for(settings, migrated_sqlite) as world:
            session = world.session()
            ended = desk.run(world, session, "Write two notes.")
            accounts = world.accounts(session)
    assert result_of(ended)["result"] == WORDS
    assert [Path(write["file_path"]).read_text() for write in writes] == [*texts]
    assert ended.asked_outside == []
    first, second, third = provider.bodies
    check_translation(first)
    assert calls_in(second) == {"Write_0": writes[0], "Write_1": writes[1]}
    assert calls_in(third) == {**calls_in(second), "Read_0": reads[0]}
    results = {
        message["tool_call_id"]: message["content"]
        for message in third["messages"]
        if message["role"] == "tool"
    }
    assert list(results) == ["Write_0", "Write_1", "Read_0"]
    assert writes[1]["file_path"] in results["Write_1"]
    assert base64.b64encode(PICTURE).decode() in json.dumps(third["messages"])
    ((name, calls, tokens, _),) = accounts
    assert (name, calls, tokens) == ("openai", 3, 3 * sum(USAGE.values()))


def called(tool: str, inputs: Sequence[Mapping[str, str]]) -> Reply:
    """An answer with calls of one tool, their pieces in turn."""
    begun = [
        {"index": index, "id": f"{tool}_{index}", "function": {"name": tool, "arguments": ""}}
        for index in range(len(inputs))
    ]
    texts = [*map(json.dumps, inputs)]
    pieces = [
        piece(text[start : start + 20], index=index)
        for start in range(0, max(map(len, texts)), 20)
        for index, text in enumerate(texts)
    ]
    return completions(
        chunk(content="I do it."),
        *(chunk(tool_calls=[each]) for each in (*begun, *pieces)),
        chunk("tool_calls"),
        chunk(usage=USAGE),
    )


def calls_in(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs of all tool calls in a request, by their id."""
    return {
        call["id"]: json.loads(call["function"]["arguments"])
        for message in body["messages"]
        for call in message.get("tool_calls", ())
    }


def check_translation(body: Mapping[str, Any]) -> None:
    """Whether the endpoint got the system prompt and the tools, and nothing that it can't know."""
    system, *others = body["messages"]
    assert system["role"] == "system"
    assert len(system["content"]) > 5_000
    assert "Write two notes." in json.dumps([each for each in others if each["role"] == "user"])
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
