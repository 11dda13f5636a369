"""The generator, which has a client of its own, understands answers as the SDK does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from agent.generator.messages_api import VERSION, MessagesApi, Refusal
from agent.generator.model import events
from agent.generator.reply import Reply
from agent.generator.tools import TOOLS
from anthropic._constants import ANTHROPIC_API_VERSION

from tests.contract.messages_api.sdk import content
from tests.fakes.agents.home import SESSION_TOKEN, FakeHome
from tests.fakes.llm.messages_api import MessagesApi as FakeApi
from tests.fakes.llm.messages_scripts import CallsTurn, ErrorTurn, TextTurn, ToolTurn, Turn
from tests.fakes.llm.separators import SEPARATORS

REQUEST: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 8000,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "A page"}]}],
    "tools": TOOLS,
}
TURNS = [
    TextTurn(text="Grüße, 世界! 🎉 and some more text, so that it comes in pieces."),
    TextTurn(text=f"a{SEPARATORS}b"),
    ToolTurn(name="write_file", input={"path": "a", "content": "ä\n" * 2000}),
    CallsTurn(calls=[("run", {"command": "ls"}), ("finish", {"summary": "x"})], thinking="Hm."),
    CallsTurn(calls=[("start_app", {})], text="Both."),
]


@pytest.fixture
def generator(api: FakeApi) -> Iterator[MessagesApi]:
    folder = Path(tempfile.mkdtemp(prefix="home-"))  # a socket's path must be short
    with FakeHome(folder) as home:
        home.model_url = api.url
        yield MessagesApi(socket_path=str(home.socket_path), token=SESSION_TOKEN)
    shutil.rmtree(folder)


def test_the_version_of_the_api_is_the_sdks() -> None:
    assert VERSION == ANTHROPIC_API_VERSION


@pytest.mark.parametrize("turn", TURNS)
def test_an_answer_is_understood_as_the_sdk_understands_it(
    api: FakeApi, client: anthropic.Anthropic, generator: MessagesApi, turn: Turn
) -> None:
    api.play(turn, turn)
    with client.messages.stream(**REQUEST) as stream:
        judged = stream.get_final_message()
    reply = Reply()
    with generator.stream({**REQUEST, "stream": True}) as pieces:
        for event in events(pieces):
            reply.feed(event)
    blocks = [{name: value for name, value in b.items() if name != "id"} for b in reply.content]
    assert blocks == content(judged)
    assert reply.stop_reason == judged.stop_reason
    assert reply.output_tokens == judged.usage.output_tokens


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 529])
def test_a_refusal_is_understood_as_the_sdk_understands_it(
    api: FakeApi, client: anthropic.Anthropic, generator: MessagesApi, status: int
) -> None:
    api.always(ErrorTurn(status=status, type="overloaded_error", retry_after=3))
    with pytest.raises(anthropic.APIStatusError) as judged:
        client.messages.create(**REQUEST)
    with pytest.raises(Refusal) as refused, generator.stream(REQUEST):
        pass
    assert refused.value.status == judged.value.status_code
    assert refused.value.error["type"] == judged.value.type
    assert refused.value.error["message"] == judged.value.api_message
    assert refused.value.headers["retry-after"] == judged.value.response.headers["retry-after"]
