"""The answers of the stand-in: it writes the canned app with the tools that a request offers. Pure.

`server.py` calls `reply`. It supports two sets of tools: a single call of `write_files` with the
whole app, and the agent's own tools (`write_file`, `start_app`, `finish` and so on) over several
turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.entrypoints.demo.apps import write_app
from orchestrator.entrypoints.demo.wire import Block, Json, Reply

CHANGED = "Change it as follows:"
"""The text before the user's wish; `runtime-image/agent/generator/conversation.py` writes it."""
PLACE = '<p role="status"></p>'
"""A change inserts its text before this element of the canned app."""


def reply(body: Json) -> Reply:
    """The reply to the body of a request."""
    names = {tool.get("name") for tool in body.get("tools") or ()}
    if body.get("tool_choice", {}).get("type") == "none":
        names = set()
    prompt, results = _prompt_and_results(body["messages"])
    is_written = bool(results) and not any(result.get("is_error") for result in results)
    if {"write_file", "finish"} <= names:
        return _reply_with_agent_tools(prompt, _count_tool_turns(body["messages"]), results, body)
    if is_written:
        return _text_reply("The app is written and ready to start.", body)
    if "write_files" not in names:
        return _text_reply(f"You said: {prompt}", body)
    return tool_reply(
        ("write_files", write_app(prompt)), text="I'll write a small app for that.", body=body
    )


def tool_reply(*calls: tuple[str, Mapping[str, Any]], text: str, body: Json) -> Reply:
    """A reply that calls tools. `calls`: pairs of a tool's name and its input."""
    blocks = [
        Block(kind="tool_use", payload=json.dumps(arguments, ensure_ascii=False), tool=name)
        for name, arguments in calls
    ]
    return Reply(
        blocks=[*_thinking(body), Block(kind="text", payload=text), *blocks], stop_reason="tool_use"
    )


def _text_reply(text: str, body: Json) -> Reply:
    return Reply(
        blocks=[*_thinking(body), Block(kind="text", payload=text)], stop_reason="end_turn"
    )


def _thinking(body: Json) -> list[Block]:
    if body.get("thinking", {}).get("type") not in {"enabled", "adaptive"}:
        return []
    return [Block(kind="thinking", payload="A short list with a clear page should do.")]


def _reply_with_agent_tools(prompt: str, turns: int, results: list[Json], body: Json) -> Reply:
    if results and turns > 1:
        summary = {"summary": "A canned app: a list to tick off. No model wrote it."}
        return tool_reply(("finish", summary), text="It runs.", body=body)
    if results:
        return tool_reply(("start_app", {}), text="Let me see it run.", body=body)
    if CHANGED in prompt:
        return tool_reply(("edit_file", _edit(prompt)), text="I'll put that in.", body=body)
    return tool_reply(*_write_calls(prompt), text="I'll write a small app for that.", body=body)


def _write_calls(prompt: str) -> Iterator[tuple[str, Json]]:
    app = write_app(prompt)
    yield "write_file", {"path": "spawn.json", "content": json.dumps(app["manifest"], indent=2)}
    for file in app["files"]:
        yield "write_file", file


def _edit(prompt: str) -> Json:
    wish = prompt.partition(CHANGED)[2].strip()[:200].replace("<", "&lt;")
    path = "public/index.html" if 'path="public/index.html"' in prompt else "index.html"
    return {"path": path, "old_text": PLACE, "new_text": f"<p>{wish}</p>\n{PLACE}"}


def _prompt_and_results(messages: list[Json]) -> tuple[str, list[Json]]:
    """The user's latest text, and the latest tool results if they came after it."""
    prompt, results = "", []
    for message in messages:
        if message["role"] != "user":
            continue
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = " ".join(block["text"] for block in blocks if block["type"] == "text").strip()
        results = [block for block in blocks if block["type"] == "tool_result"]
        if text and not results:
            prompt = text
    return prompt, results


def _count_tool_turns(messages: list[Json]) -> int:
    """How many of our earlier replies called tools."""
    return sum(
        any(block["type"] == "tool_use" for block in message["content"])
        for message in messages
        if message["role"] == "assistant" and isinstance(message["content"], list)
    )
