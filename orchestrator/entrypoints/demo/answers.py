"""What the stand-in answers: the canned app, with whatever tools it is offered. Pure.

Used by `server.py`. It knows two sets of tools: one call of `write_files` with the whole app, and
the agent's own (`write_file`, `start_app`, `finish` and so on), over several turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.entrypoints.demo.apps import write_app
from orchestrator.entrypoints.demo.wire import Block, Json, Reply

CHANGED = "Change it as follows:"
"""So begins the wish, as `runtime-image/agent/generator/conversation.py` writes it."""
PLACE = '<p role="status"></p>'
"""Where a change of the canned app puts its words."""


def reply(body: Json) -> Reply:
    """The answer to a request."""
    names = {tool.get("name") for tool in body.get("tools") or ()}
    if body.get("tool_choice", {}).get("type") == "none":
        names = set()
    prompt, results = _heard(body["messages"])
    good = bool(results) and not any(result.get("is_error") for result in results)
    if {"write_file", "finish"} <= names:
        return _with_tools(prompt, _calls_so_far(body["messages"]), results, body)
    if good:
        return _says("The app is written and ready to start.", body)
    if "write_files" not in names:
        return _says(f"You said: {prompt}", body)
    return calling(
        ("write_files", write_app(prompt)), text="I'll write a small app for that.", body=body
    )


def calling(*calls: tuple[str, Mapping[str, Any]], text: str, body: Json) -> Reply:
    """An answer that calls tools."""
    blocks = [
        Block(kind="tool_use", payload=json.dumps(given, ensure_ascii=False), tool=name)
        for name, given in calls
    ]
    return Reply(
        blocks=[*_thoughts(body), Block(kind="text", payload=text), *blocks], stop_reason="tool_use"
    )


def _says(text: str, body: Json) -> Reply:
    return Reply(
        blocks=[*_thoughts(body), Block(kind="text", payload=text)], stop_reason="end_turn"
    )


def _thoughts(body: Json) -> list[Block]:
    if body.get("thinking", {}).get("type") not in {"enabled", "adaptive"}:
        return []
    return [Block(kind="thinking", payload="A short list with a clear page should do.")]


def _with_tools(prompt: str, calls: int, results: list[Json], body: Json) -> Reply:
    if results and calls > 1:
        summary = {"summary": "A canned app: a list to tick off. No model wrote it."}
        return calling(("finish", summary), text="It runs.", body=body)
    if results:
        return calling(("start_app", {}), text="Let me see it run.", body=body)
    if CHANGED in prompt:
        return calling(("edit_file", _change(prompt)), text="I'll put that in.", body=body)
    return calling(*_files(prompt), text="I'll write a small app for that.", body=body)


def _files(prompt: str) -> Iterator[tuple[str, Json]]:
    app = write_app(prompt)
    yield "write_file", {"path": "spawn.json", "content": json.dumps(app["manifest"], indent=2)}
    for file in app["files"]:
        yield "write_file", file


def _change(prompt: str) -> Json:
    wish = prompt.partition(CHANGED)[2].strip()[:200].replace("<", "&lt;")
    path = "public/index.html" if 'path="public/index.html"' in prompt else "index.html"
    return {"path": path, "old_text": PLACE, "new_text": f"<p>{wish}</p>\n{PLACE}"}


def _heard(messages: list[Json]) -> tuple[str, list[Json]]:
    """The latest words of the user, and the tool results that came after them, if any did."""
    prompt, results = "", []
    for message in messages:
        if message["role"] != "user":
            continue
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        words = " ".join(block["text"] for block in blocks if block["type"] == "text").strip()
        results = [block for block in blocks if block["type"] == "tool_result"]
        if words and not results:
            prompt = words
    return prompt, results


def _calls_so_far(messages: list[Json]) -> int:
    """Answers of ours that called tools."""
    return sum(
        any(block["type"] == "tool_use" for block in message["content"])
        for message in messages
        if message["role"] == "assistant" and isinstance(message["content"], list)
    )
