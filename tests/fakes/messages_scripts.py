"""What the fake Messages API says: turns as data, and the app that it writes when nobody scripted it.

Called by `messages_api`, and by the tests that build turns. Nothing here knows HTTP.
"""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DELAY_S = 1.0
"""Longest pause between two events of a `Drip`: a test that waits for more waits for nothing."""
TITLE_CHARS = 200
"""A longer prompt is shortened in the default app's title and heading."""


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
    """Each event comes `delay_s` after the one before; an unstreamed answer comes after one delay."""

    delay_s: float
    turn: "Turn" = TextTurn(text="Word by word by word.")

    def __post_init__(self) -> None:
        if not 0 <= self.delay_s <= MAX_DELAY_S:
            raise ValueError(f"delay_s must lie in 0..{MAX_DELAY_S}, not {self.delay_s}")


Turn = TextTurn | ToolTurn | MalformedToolInput | MaxTokens | Refusal | ErrorTurn | Cut | Drip


def default_turn(body: Mapping[str, Any]) -> Turn:
    """Answer as an able model would: write the app that was asked for, when there is a tool for it."""
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
    title = " ".join(prompt.split())[:TITLE_CHARS] or "Untitled"
    folder, api, start = {
        "static": ("", "", []),
        "python": ("public/", "api/items", ["python", "main.py"]),
        "node": ("public/", "api/items", ["node", "server.js"]),
    }[kind]
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
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="style.css">
</head>
<body data-api="{api}">
<main>
<h1>{title}</h1>
<p id="summary" role="status"></p>
<progress max="1" value="0" aria-label="Done"></progress>
<form><input name="text" placeholder="What is next?" aria-label="New item" required maxlength="200">
<button>Add</button></form>
<ul></ul>
</main>
<script src="app.js"></script>
</body>
</html>
"""

STYLE = """* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; font: 16px/1.5 system-ui, sans-serif; color: #1c2330;
  background: linear-gradient(160deg, #eef2ff, #fdf2f8); }
main { max-width: 38rem; margin: 8vh auto; padding: 2rem; background: #fff; border-radius: 1.25rem;
  box-shadow: 0 1.5rem 4rem rgb(60 60 120 / 14%); }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; letter-spacing: -0.02em; overflow-wrap: anywhere; }
#summary { color: #5b6478; }
progress { width: 100%; height: 0.5rem; accent-color: #5b5bd6; }
form { display: flex; gap: 0.5rem; margin: 1.5rem 0; }
input[name] { flex: 1; min-width: 0; padding: 0.7rem 1rem; font: inherit; border: 1px solid #d5d9e5;
  border-radius: 0.75rem; }
button { padding: 0.7rem 1.2rem; font: inherit; font-weight: 600; color: #fff; background: #5b5bd6;
  border: 0; border-radius: 0.75rem; cursor: pointer; }
ul { margin: 0; padding: 0; list-style: none; }
li { display: flex; gap: 0.75rem; align-items: center; padding: 0.6rem 0; border-top: 1px solid #eef0f6; }
li label { flex: 1; overflow-wrap: anywhere; }
li.done label { color: #667085; text-decoration: line-through; }
li button { padding: 0.1rem 0.6rem; color: #5b6478; background: #eef0f6; }
"""

SCRIPT = """const api = document.body.dataset.api; // empty: the list lives in this browser alone
const form = document.querySelector("form");
let items = [];

async function load() {
  const kept = api ? await (await fetch(api)).text() : localStorage.getItem("items");
  items = JSON.parse(kept || "[]");
  render();
}

async function change(next) {
  items = next;
  render();
  const body = JSON.stringify(items);
  if (!api) return localStorage.setItem("items", body);
  await fetch(api, { method: "PUT", headers: { "Content-Type": "application/json" }, body });
}

function row(item, at) {
  const line = document.createElement("li");
  line.className = item.done ? "done" : "";
  line.innerHTML = '<input type="checkbox"><label></label><button aria-label="Remove">×</button>';
  const [box, label, remove] = line.children;
  [box.id, box.checked, label.htmlFor, label.textContent] = [`i${at}`, item.done, `i${at}`, item.text];
  box.onchange = () => change(items.with(at, { ...item, done: box.checked }));
  remove.onclick = () => change(items.toSpliced(at, 1));
  return line;
}

function render() {
  const done = items.filter((item) => item.done).length;
  document.querySelector("ul").replaceChildren(...items.map(row));
  document.querySelector("progress").value = items.length ? done / items.length : 0;
  document.querySelector("#summary").textContent = `${done} of ${items.length} done`;
}

form.onsubmit = (event) => {
  event.preventDefault();
  change([...items, { text: form.text.value, done: false }]);
  form.reset();
};
load();
"""

PYTHON_MAIN = """import os
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel


class Item(BaseModel):
    text: str
    done: bool = False


app = FastAPI(title="List")
items: list[Item] = []


@app.get("/api/items")
def read() -> list[Item]:
    return items


@app.put("/api/items")
def replace(new: list[Item]) -> list[Item]:
    items[:] = new
    return items


app.mount("/", StaticFiles(directory=Path(__file__).parent / "public", html=True))

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
"""

NODE_SERVER = """const { createServer } = require("node:http");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const load = (name, type) => ({ type, body: readFileSync(join(__dirname, "public", name)) });
const pages = {
  "/": load("index.html", "text/html; charset=utf-8"),
  "/style.css": load("style.css", "text/css"),
  "/app.js": load("app.js", "text/javascript"),
};
let items = "[]";

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const send = (status, type, body) => response.writeHead(status, { "Content-Type": type }).end(body);
  if (pages[pathname]) return send(200, pages[pathname].type, pages[pathname].body);
  if (pathname !== "/api/items") return send(404, "text/plain", "Not found");
  if (request.method === "PUT") {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    try {
      items = JSON.stringify(JSON.parse(Buffer.concat(chunks)));
    } catch {
      return send(400, "text/plain", "Not JSON");
    }
  }
  send(200, "application/json", items);
});
server.listen(Number(process.env.PORT), "127.0.0.1");
"""
