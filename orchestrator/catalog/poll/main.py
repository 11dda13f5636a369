"""Polls: create one, share its address, vote, and see the results move while others vote.

Started as ``python main.py``; listens on ``$HOST:$PORT``. The votes live in ``polls.db`` beside
this file. Every page works without JavaScript; with it, results arrive as server-sent events.
"""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Any
from urllib.parse import parse_qs

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).resolve().parent
DATABASE = HERE / "polls.db"
MAX_QUESTION = 200
MAX_OPTION = 120
MAX_OPTIONS = 10
MAX_BODY_BYTES = 16_384
MAX_WATCHERS = 200  # open event streams of one poll
KEEPALIVE_S = 20.0  # shorter than the idle timeout of common proxies
ONE_YEAR_S = 365 * 86_400
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

SCHEMA = """
CREATE TABLE IF NOT EXISTS polls (
    id TEXT PRIMARY KEY, question TEXT NOT NULL, multiple INTEGER NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE TABLE IF NOT EXISTS options (
    id INTEGER PRIMARY KEY, poll_id TEXT NOT NULL REFERENCES polls, text TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS votes (
    option_id INTEGER NOT NULL REFERENCES options, voter TEXT NOT NULL,
    PRIMARY KEY (option_id, voter)
);
"""

templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True)
watchers: dict[str, set[asyncio.Event]] = {}  # poll id -> one event per open stream


# Queries take microseconds on a local file, so handlers call them directly: no threads, no pool.


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """A connection that commits at the end of the block, and rolls back when it raises."""
    with closing(sqlite3.connect(DATABASE, timeout=5)) as connection, connection:
        connection.row_factory = sqlite3.Row
        yield connection


def prepare() -> None:
    """Create the tables, and an example at the very first start."""
    is_new = not DATABASE.exists()
    with transaction() as db:
        db.executescript(SCHEMA)
    if is_new:
        drinks = ["Coffee, black", "Tea, with milk", "Just water", "Whatever is left"]
        save_poll("What keeps this team going?", drinks, multiple=False)


def save_poll(question: str, options: list[str], *, multiple: bool) -> str:
    poll_id = token_hex(4)
    with transaction() as db:
        db.execute(
            "INSERT INTO polls (id, question, multiple) VALUES (?, ?, ?)",
            (poll_id, question, multiple),
        )
        rows = [(poll_id, text) for text in options]
        db.executemany("INSERT INTO options (poll_id, text) VALUES (?, ?)", rows)
    return poll_id


def load_poll(poll_id: str) -> dict[str, Any]:
    """The poll with its counts: ``voters`` people, and per option ``votes`` and ``share`` in %."""
    with transaction() as db:
        poll = db.execute("SELECT * FROM polls WHERE id = ?", (poll_id,)).fetchone()
        if poll is None:
            raise HTTPException(404, "There is no such poll.")
        options = db.execute(
            "SELECT id, text, (SELECT count(*) FROM votes WHERE option_id = options.id) AS votes"
            " FROM options WHERE poll_id = ? ORDER BY id",
            (poll_id,),
        ).fetchall()
        voters = db.execute(
            "SELECT count(DISTINCT voter) FROM votes JOIN options ON options.id = option_id"
            " WHERE poll_id = ?",
            (poll_id,),
        ).fetchone()[0]
    rows = [dict(row) | {"share": round(100 * row["votes"] / max(1, voters))} for row in options]
    return {
        "id": poll["id"],
        "question": poll["question"],
        "multiple": bool(poll["multiple"]),
        "voters": voters,
        "options": rows,
    }


def recent_polls() -> list[sqlite3.Row]:
    with transaction() as db:
        return db.execute(
            "SELECT id, question, (SELECT count(DISTINCT voter) FROM votes JOIN options"
            " ON options.id = option_id WHERE poll_id = polls.id) AS voters"
            " FROM polls ORDER BY created_at DESC LIMIT 12"
        ).fetchall()


def choices_of(poll_id: str, voter: str) -> set[int]:
    with transaction() as db:
        rows = db.execute(
            "SELECT option_id FROM votes JOIN options ON options.id = option_id"
            " WHERE poll_id = ? AND voter = ?",
            (poll_id, voter),
        )
        return {row["option_id"] for row in rows}


def save_vote(poll_id: str, voter: str, choices: set[int]) -> None:
    """Replace what this voter said before: changing one's mind is allowed, voting twice is not."""
    with transaction() as db:
        db.execute(
            "DELETE FROM votes WHERE voter = ?"
            " AND option_id IN (SELECT id FROM options WHERE poll_id = ?)",
            (voter, poll_id),
        )
        rows = [(choice, voter) for choice in choices]
        db.executemany("INSERT INTO votes (option_id, voter) VALUES (?, ?)", rows)


async def read_form(request: Request) -> dict[str, list[str]]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, "That is more than this form may send.")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: [" ".join(value.split()) for value in values] for name, values in fields.items()}


def check_poll(question: str, options: list[str]) -> str | None:
    """What is wrong with a new poll, in a sentence for its author; None if nothing is."""
    if not question:
        return "Please write a question."
    if len(question) > MAX_QUESTION:
        return f"The question may have {MAX_QUESTION} characters."
    if any(len(option) > MAX_OPTION for option in options):
        return f"An answer may have {MAX_OPTION} characters."
    if len(options) > MAX_OPTIONS:
        return f"A poll may have {MAX_OPTIONS} answers."
    if len(options) < 2 or len({option.casefold() for option in options}) < len(options):
        return "Please write at least two different answers."
    return None


def page(name: str, status: int = 200, **values: object) -> HTMLResponse:
    html = templates.get_template(name).render(max_options=MAX_OPTIONS, **values)
    return HTMLResponse(html, status, HEADERS)


async def home(request: Request) -> Response:
    return page("home.html", polls=recent_polls(), question="", options=[], problem=None)


async def create(request: Request) -> Response:
    form = await read_form(request)
    question = form.get("question", [""])[0]
    options = [text for text in form.get("option", []) if text]
    problem = check_poll(question, options)
    if problem:
        values = {"polls": recent_polls(), "question": question, "options": options}
        return page("home.html", 422, problem=problem, **values)
    poll_id = save_poll(question, options, multiple="multiple" in form)
    return RedirectResponse(f"p/{poll_id}", 303)


async def show(request: Request) -> Response:
    poll = load_poll(request.path_params["poll_id"])
    mine = choices_of(poll["id"], request.cookies.get("voter", ""))
    return page("poll.html", poll=poll, mine=mine, problem=None)


async def vote(request: Request) -> Response:
    poll = load_poll(request.path_params["poll_id"])
    poll_id, known = poll["id"], {option["id"] for option in poll["options"]}
    form = await read_form(request)
    chosen = {int(text) if text.isdecimal() else -1 for text in form.get("choice", [])}
    problem = None
    if not chosen:
        problem = "Please choose an answer."
    elif not chosen <= known:
        problem = "That answer isn't part of this poll."
    elif len(chosen) > 1 and not poll["multiple"]:
        problem = "Please choose one answer only."
    voter = request.cookies.get("voter", "")
    if problem:
        mine = choices_of(poll_id, voter)
        return page("poll.html", 422, poll=poll, mine=mine, problem=problem)
    voter = voter if 16 <= len(voter) <= 64 else token_urlsafe(16)
    save_vote(poll_id, voter, chosen)
    for event in watchers.get(poll_id, ()):
        event.set()
    answer = RedirectResponse(f"../{poll_id}", 303)
    answer.set_cookie("voter", voter, max_age=ONE_YEAR_S, httponly=True, samesite="lax")
    return answer


async def results(request: Request) -> Response:
    poll = load_poll(request.path_params["poll_id"])
    return JSONResponse(poll, headers={"Cache-Control": "no-store"})


async def events(request: Request) -> Response:
    poll_id = load_poll(request.path_params["poll_id"])["id"]
    if len(watchers.get(poll_id, ())) >= MAX_WATCHERS:
        raise HTTPException(503, "Too many people are watching. The page still works: reload it.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(watch(poll_id), media_type="text/event-stream", headers=headers)


async def watch(poll_id: str) -> AsyncIterator[str]:
    """The results now, and again whenever somebody votes, until the reader goes away."""
    changed = asyncio.Event()
    watchers.setdefault(poll_id, set()).add(changed)
    try:
        while True:
            yield f"data: {json.dumps(load_poll(poll_id))}\n\n"
            while True:
                try:
                    await asyncio.wait_for(changed.wait(), KEEPALIVE_S)
                except TimeoutError:
                    yield ": still here\n\n"
                else:
                    break
            changed.clear()
    finally:
        watchers[poll_id].discard(changed)
        if not watchers[poll_id]:
            del watchers[poll_id]


async def explain(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    root = "../" * (request.url.path.count("/") - 1) or "./"
    return page("error.html", error.status_code, message=error.detail, root=root)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    prepare()
    yield


app = Starlette(
    routes=[
        Route("/", home),
        Route("/polls", create, methods=["POST"]),
        Route("/p/{poll_id}", show),
        Route("/p/{poll_id}/vote", vote, methods=["POST"]),
        Route("/p/{poll_id}/results", results),
        Route("/p/{poll_id}/events", events),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ],
    exception_handlers={HTTPException: explain},
    lifespan=lifespan,
)


if __name__ == "__main__":
    uvicorn.run(
        app,
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "3001")),
        loop="asyncio",
        http="h11",
        ws="none",
        access_log=False,
        timeout_graceful_shutdown=1,  # open event streams would otherwise hold up the stop
    )
