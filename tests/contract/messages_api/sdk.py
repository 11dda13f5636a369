"""Requests to the fake Messages API: through the SDK, or as raw HTTP."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message, MessageParam, ToolParam

from tests.fakes.llm.messages_api import MessagesApi

MODEL = "claude-sonnet-5-5"
TEXT = 'Grüße, 世界! 🎉 \\ "quoted"\nand a second line that is long enough for several pieces.'
TOOL: ToolParam = {
    "name": "write_files",
    "description": "Write the app.",
    "input_schema": {"type": "object", "properties": {"files": {"type": "array"}}},
}
HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
BODY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Hello"}],
}


def ask(
    client: anthropic.Anthropic,
    *messages: MessageParam,
    streamed: bool = False,
    tools: tuple[ToolParam, ...] = (TOOL,),
    max_tokens: int = 20_000,
) -> Message:
    """Send messages, or a prompt for a kanban board, and return the whole answer."""
    prompt: MessageParam = {"role": "user", "content": "A kanban board"}
    conversation = list(messages) or [prompt]
    if not streamed:
        return client.messages.create(
            model=MODEL, max_tokens=max_tokens, messages=conversation, tools=tools
        )
    with client.messages.stream(
        model=MODEL, max_tokens=max_tokens, messages=conversation, tools=tools
    ) as stream:
        return stream.get_final_message()


def content(message: Message) -> list[dict[str, Any]]:
    """The content without the ids, which differ between answers."""
    return [
        {name: value for name, value in block.to_dict().items() if name != "id"}
        for block in message.content
    ]


def post(api: MessagesApi, body: object, headers: dict[str, str] = HEADERS) -> httpx2.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(f"{api.url}/v1/messages", content=raw, headers=headers, trust_env=False)


def error_of(response: httpx2.Response) -> tuple[int, str]:
    """Status and type of an error response."""
    answer = response.json()
    assert answer["type"] == "error"
    assert answer["error"]["message"]
    assert answer["request_id"] == response.headers["request-id"]
    return response.status_code, answer["error"]["type"]
