"""What the fake Messages API says: turns as data, their content, and the app of the default turn.

Called by `messages_api`, and by the tests that build turns. Nothing here knows HTTP.
"""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

CHARS_PER_TOKEN = 4  # a rough but repeatable tokenizer, for usage and for max_tokens
MAX_DELAY_S = 1.0  # a test that waits for more between two events waits for nothing
TITLE_CHARS = 200  # a longer prompt is shortened in the default app's title and heading


@dataclass(frozen=True, kw_only=True)
class TextTurn:
    """The model answers in words (`stop_reason` end_turn)."""

    text: str
    thinking: str = ""  # not empty: a thinking block comes first


@dataclass(frozen=True, kw_only=True)
class ToolTurn:
    """The model calls a tool (`stop_reason` tool_use)."""

    name: str
    input: Mapping[str, object]
    text: str = ""  # not empty: said in a text block before the call
    thinking: str = ""


@dataclass(frozen=True, kw_only=True)
class MalformedToolInput:
    """A tool call whose input is not JSON. Only a stream can show it: unstreamed, `input` is {}."""

    name: str = "write_files"
    raw: str = '{"manifest": oops'


@dataclass(frozen=True, kw_only=True)
class MaxTokens:
    """The turn breaks off halfway (`stop_reason` max_tokens), mid-word or mid-JSON."""

    turn: TextTurn | ToolTurn


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The model declines (`stop_reason` refusal, HTTP 200)."""

    text: str = "I can't help with that."
    category: str | None = "general_harms"  # cyber, bio, general_harms ... or none
    explanation: str | None = "The request was declined."


@dataclass(frozen=True, kw_only=True)
class ErrorTurn:
    """The service fails: as an HTTP status or, once `after_events` are out, as an SSE error."""

    status: int = 529
    type: str = "overloaded_error"
    message: str = "Overloaded"
    retry_after: float | None = None  # seconds, sent as the `retry-after` header
    after_events: int | None = None  # only for streams; None: the HTTP status says it


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The connection breaks after so many events; an unstreamed body breaks off in its middle."""

    after_events: int
    turn: "Turn" = TextTurn(text="A sentence that nobody will read to its end.")


@dataclass(frozen=True, kw_only=True)
class Drip:
    """Each event comes `delay_s` after the one before it, and an unstreamed answer that late."""

    delay_s: float
    turn: "Turn" = TextTurn(text="Word by word by word.")

    def __post_init__(self) -> None:
        if not 0 <= self.delay_s <= MAX_DELAY_S:
            raise ValueError(f"delay_s must lie in 0..{MAX_DELAY_S}, not {self.delay_s}")


Said = TextTurn | ToolTurn | MalformedToolInput | MaxTokens | Refusal
Turn = Said | ErrorTurn | Cut | Drip


@dataclass(frozen=True, kw_only=True)
class Block:
    """A content block before it is cut into deltas; a tool's input is JSON text here."""

    kind: str  # text, thinking or tool_use
    payload: str
    tool: str = ""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a turn comes down to: its content, and why it ends."""

    blocks: list[Block]
    stop_reason: str
    stop_details: Mapping[str, str | None] | None = None


def reply_of(turn: Said, *, max_tokens: int) -> Reply:
    """Return the content of a turn, broken off where `max_tokens` are spent."""
    whole = _whole_reply(turn.turn if isinstance(turn, MaxTokens) else turn)
    chars = sum(len(block.payload) for block in whole.blocks)
    budget = chars // 2 if isinstance(turn, MaxTokens) else max_tokens * CHARS_PER_TOKEN
    if chars <= budget:
        return whole
    kept = []
    for block in whole.blocks:
        if budget > 0:
            kept.append(replace(block, payload=block.payload[:budget]))
        budget -= len(block.payload)
    return Reply(blocks=kept, stop_reason="max_tokens")


def _whole_reply(turn: TextTurn | ToolTurn | MalformedToolInput | Refusal) -> Reply:
    if isinstance(turn, MalformedToolInput):
        call = Block(kind="tool_use", payload=turn.raw, tool=turn.name)
        return Reply(blocks=[call], stop_reason="tool_use")
    words = [Block(kind="text", payload=turn.text)] if turn.text else []
    if isinstance(turn, Refusal):
        details = {"type": "refusal", "category": turn.category, "explanation": turn.explanation}
        return Reply(blocks=words, stop_reason="refusal", stop_details=details)
    thoughts = [Block(kind="thinking", payload=turn.thinking)] if turn.thinking else []
    if isinstance(turn, TextTurn):
        return Reply(blocks=thoughts + words, stop_reason="end_turn")
    payload = json.dumps(turn.input, ensure_ascii=False)
    call = Block(kind="tool_use", payload=payload, tool=turn.name)
    return Reply(blocks=[*thoughts, *words, call], stop_reason="tool_use")


def default_turn(body: Mapping[str, Any]) -> Turn:
    """Answer as an able model would: write the app, when there is a tool to write it with."""
    prompt, answered = _conversation(body["messages"])
    wants_thought = body.get("thinking", {}).get("type") in {"enabled", "adaptive"}
    thinking = "A short list with a clear page should do." if wants_thought else ""
    can_write = any(tool.get("name") == "write_files" for tool in body.get("tools") or ())
    forbidden = body.get("tool_choice", {}).get("type") == "none"
    if answered:
        return TextTurn(text="The app is written and ready to start.", thinking=thinking)
    if not can_write or forbidden:
        return TextTurn(text=f"You said: {prompt}", thinking=thinking)
    said = "I'll write a small app for that."
    return ToolTurn(name="write_files", input=write_app(prompt), text=said, thinking=thinking)


def _conversation(messages: list[dict[str, Any]]) -> tuple[str, bool]:
    """Return the latest words of the user, and whether only a good tool result came after them."""
    prompt, answered = "", False
    for message in messages:
        if message["role"] != "user":
            continue
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        words = " ".join(block["text"] for block in blocks if block["type"] == "text").strip()
        results = [block for block in blocks if block["type"] == "tool_result"]
        answered = not words and bool(results) and not any(r.get("is_error") for r in results)
        prompt = words or prompt
    return prompt, answered


def write_app(prompt: str) -> dict[str, Any]:
    """Return the input of a `write_files` call: a list app, of the kind that the prompt names."""
    kind = kind_of(prompt)
    folder, api, start = {
        "static": ("", "", []),
        "python": ("public/", "api/items", ["python", "main.py"]),
        "node": ("public/", "api/items", ["node", "server.js"]),
    }[kind]
    title = " ".join(prompt.split())[:TITLE_CHARS] or "Untitled"
    page = PAGE.replace("{api}", api).replace("{title}", html.escape(title))
    files = {f"{folder}index.html": page, f"{folder}style.css": STYLE, f"{folder}app.js": SCRIPT}
    if kind != "static":
        files[start[1]] = {"python": PYTHON_MAIN, "node": NODE_SERVER}[kind]
    return {
        "manifest": {"kind": kind, "title": title, "start": start},
        "files": [{"path": path, "content": content} for path, content in files.items()],
    }


def kind_of(prompt: str) -> str:
    """Return static, python or node. Named languages win over the bare word API."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    if words & {"python", "fastapi"}:
        return "python"
    if words & {"node", "nodejs"}:
        return "node"
    return "python" if words & {"api", "apis"} else "static"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="style.css">
<body data-api="{api}">
<main>
<h1>{title}</h1>
<p role="status"></p>
<form><input name="text" placeholder="What is next?" aria-label="New item" required>
<button>Add</button></form>
<ul></ul>
</main>
<script src="app.js"></script>
"""

STYLE = """* { box-sizing: border-box; font: inherit; }
body { margin: 0; min-height: 100vh; padding: 8vh 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: #1c2330; background: linear-gradient(160deg, #e0e7ff, #fdf2f8); }
main { max-width: 38rem; margin: auto; padding: 2rem; background: #fff; border-radius: 1.25rem; }
h1 { margin: 0; font-size: 1.75rem; font-weight: 700; line-height: 1.2; } p { color: #5b6478; }
form, li { display: flex; gap: 0.75rem; align-items: center; justify-content: space-between; }
input { flex: 1; min-width: 0; padding: 0.7rem; border: 1px solid #cbd2e1; border-radius: 1rem; }
button { padding: 0.7rem 1.2rem; color: #fff; background: #4f46e5; border: 0; border-radius: 1rem; }
ul { margin: 1.5rem 0 0; padding: 0; list-style: none; }
main { box-shadow: 0 1.5rem 4rem rgb(60 60 120 / 15%); overflow-wrap: anywhere; }
li { padding: 0.75rem 0; border-top: 1px solid #eceff6; }
li button { padding: 0.2rem 0.8rem; color: #3730a3; background: #e0e7ff; }
"""

SCRIPT = """const api = document.body.dataset.api; // empty: the list lives in this browser alone
const form = document.querySelector("form");
const headers = { "Content-Type": "application/json" };
let items = [];
function show(next) {
  items = next;
  document.querySelector("p").textContent = `${items.length} left to do`;
  document.querySelector("ul").replaceChildren(...items.map((text, at) => {
    const [line, done] = [document.createElement("li"), document.createElement("button")];
    done.textContent = "Done";
    done.onclick = () => change(items.filter((_, other) => other !== at));
    line.append(text, done);
    return line;
  }));
}
async function change(next) {
  show(next);
  const body = JSON.stringify(next);
  if (api) await fetch(api, { method: "PUT", headers, body });
  else localStorage.setItem("items", body);
}
form.onsubmit = (event) => {
  event.preventDefault();
  change([...items, form.text.value]);
  form.reset();
};
if (api) fetch(api).then((answer) => answer.json()).then(show);
else show(JSON.parse(localStorage.getItem("items") || "[]"));
"""

PYTHON_MAIN = """import os
import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

app = FastAPI()
items: list[str] = []
@app.get("/api/items")
def read() -> list[str]:
    return items
@app.put("/api/items")
def write(new: list[str]) -> list[str]:
    items[:] = new
    return items
app.mount("/", StaticFiles(directory="public", html=True))
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
"""

NODE_SERVER = """const { createServer } = require("node:http");
const { readFileSync } = require("node:fs");
const pages = {
  "/": ["text/html; charset=utf-8", readFileSync("public/index.html")],
  "/style.css": ["text/css", readFileSync("public/style.css")],
  "/app.js": ["text/javascript", readFileSync("public/app.js")],
};
let items = "[]";
createServer(async (request, response) => {
  const [type, page] = pages[request.url.split("?")[0]] ?? [];
  if (page) return response.writeHead(200, { "Content-Type": type }).end(page);
  if (request.url !== "/api/items") return response.writeHead(404).end("Not found");
  if (request.method === "PUT") {
    items = "";
    for await (const chunk of request.setEncoding("utf8")) items += chunk;
  }
  response.writeHead(200, { "Content-Type": "application/json" }).end(items);
}).listen(Number(process.env.PORT), "127.0.0.1");
"""
