"""The canned app: a to-do list as static files, in Python or in Node. Pure.

`answers.py` calls it. The languages that a prompt names decide the kind. The prompt is also the
title.
"""

from __future__ import annotations

import html
import re
from typing import Any

TITLE_CHARS = 200  # a longer prompt is shortened in the title and the heading


def write_app(prompt: str) -> dict[str, Any]:
    """Return the input of a `write_files` call: the app, of the kind that the prompt names."""
    kind = kind_of(prompt)
    folder, api, start = {
        "static": ("", "", []),
        "python": ("public/", "api/items", ["python", "main.py"]),
        "node": ("public/", "api/items", ["node", "server.js"]),
    }[kind]
    title = " ".join(prompt.split())[:TITLE_CHARS] or "Untitled"
    page = _PAGE.replace("{api}", api).replace("{title}", html.escape(title))
    files = {f"{folder}index.html": page, f"{folder}style.css": STYLE, f"{folder}app.js": SCRIPT}
    if kind != "static":
        files[start[1]] = {"python": PYTHON_MAIN, "node": NODE_SERVER}[kind]
    return {
        "manifest": {"kind": kind, "title": title, "start": start},
        "files": [{"path": path, "content": content} for path, content in files.items()],
    }


def kind_of(prompt: str) -> str:
    """Return static, python or node. A named language takes precedence over the word API."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    if words & {"python", "fastapi"}:
        return "python"
    if words & {"node", "nodejs"}:
        return "node"
    return "python" if words & {"api", "apis"} else "static"


_PAGE = """<!doctype html>
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
  document.querySelector("[role=status]").textContent = `${items.length} left to do`;
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
