"""Notes: a JSON API over SQLite, and the page in ``public/`` that uses it.

Started as ``python main.py``; listens on ``$HOST:$PORT``. The notes live in ``notes.db`` beside
this file.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, StringConstraints, field_validator, model_validator

HERE = Path(__file__).resolve().parent
DATABASE = HERE / "notes.db"

Color = Literal["sun", "coral", "sage", "sky", "lilac", "plain"]
Tag = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=30)
]

SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    color TEXT NOT NULL,
    pinned INTEGER NOT NULL,
    tags TEXT NOT NULL,         -- a JSON list, in the order the user gave
    created_at TEXT NOT NULL,   -- UTC, ISO 8601
    updated_at TEXT NOT NULL
);
"""

EXAMPLES: tuple[tuple[str, str, Color, bool, list[str]], ...] = (
    ("Welcome", "Click a note to change it.\nPress N for a new one, / to search.", "sun", True, []),
    (
        "Sunday soup",
        "Leeks, potatoes, a bay leaf.\nCream only at the end.",
        "sage",
        False,
        ["kitchen"],
    ),
    ("Books to find", "The Summer Book\nA Month in the Country", "sky", False, ["reading"]),
    ("Bike", "Front brake squeaks again.\nAsk Jo about the stand.", "coral", False, ["repairs"]),
    ("For Lena's birthday", "The blue teapot, if it is still there.", "lilac", False, ["gifts"]),
    ("", "Nobody ever regretted leaving a party at eleven.", "plain", False, []),
    ("Bread", "Fold four times, every half hour. Then sleep on it.", "sun", False, ["kitchen"]),
    ("Names for the boat", "Second Breakfast\nPatience\nThe Unsinkable II", "sky", False, ["boat"]),
)


class NoteIn(BaseModel):
    """What a client may say about a note."""

    title: str = ""
    body: str = ""
    color: Color = "plain"
    pinned: bool = False
    tags: list[Tag] = []

    @field_validator("title")
    @classmethod
    def _title(cls, title: str) -> str:
        title = " ".join(title.split())
        if len(title) > 200:
            raise ValueError("is longer than 200 characters")
        return title

    @field_validator("body")
    @classmethod
    def _body(cls, body: str) -> str:
        if len(body) > 20_000:
            raise ValueError("is longer than 20,000 characters")
        return body.strip()

    @field_validator("tags")
    @classmethod
    def _tags(cls, tags: list[str]) -> list[str]:
        unique = list(dict.fromkeys(tags))
        if len(unique) > 12:
            raise ValueError("are more than 12")
        return unique

    @model_validator(mode="after")
    def _not_empty(self) -> "NoteIn":
        if not self.title and not self.body:
            raise ValueError("a note needs a title or a text")
        return self


class Note(NoteIn):
    """A note as it is stored."""

    id: int
    created_at: str
    updated_at: str


def connect() -> sqlite3.Connection:
    """One connection per request: opening a local file costs less than sharing one safely."""
    connection = sqlite3.connect(DATABASE, timeout=5)
    connection.row_factory = sqlite3.Row
    return connection


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """A connection that commits at the end of the block, and rolls back when it raises."""
    with closing(connect()) as connection, connection:
        yield connection


def prepare() -> None:
    """Create the table, and some examples at the very first start."""
    is_new = not DATABASE.exists()
    with transaction() as db:
        db.executescript(SCHEMA)
        for title, body, color, pinned, tags in reversed(EXAMPLES if is_new else ()):
            note = NoteIn(title=title, body=body, color=color, pinned=pinned, tags=tags)
            insert(db, note)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def insert(db: sqlite3.Connection, note: NoteIn) -> int:
    at = now()
    cursor = db.execute(
        "INSERT INTO notes (title, body, color, pinned, tags, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (note.title, note.body, note.color, note.pinned, json.dumps(note.tags), at, at),
    )
    return int(cursor.lastrowid or 0)


def to_note(row: sqlite3.Row) -> Note:
    return Note(**{**dict(row), "tags": json.loads(row["tags"]), "pinned": bool(row["pinned"])})


def find(db: sqlite3.Connection, note_id: int) -> Note:
    row = db.execute("SELECT * FROM notes WHERE id = ?", (note_id,)).fetchone()
    if row is None:
        raise HTTPException(404, f"There is no note {note_id}.")
    return to_note(row)


app = FastAPI(title="Notes", docs_url=None, redoc_url=None)


@app.get("/api/notes")
def list_notes(
    q: Annotated[str, Query(max_length=200)] = "",
    tag: Annotated[str, Query(max_length=30)] = "",
) -> list[Note]:
    """Pinned notes first, then the newest; every word of ``q`` must occur."""
    clauses, values = ["1 = 1"], []
    for word in q.split():
        literal = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        clauses.append("(title || ' ' || body || ' ' || tags) LIKE ? ESCAPE '\\'")
        values.append(f"%{literal}%")
    if tag:
        clauses.append("EXISTS (SELECT 1 FROM json_each(notes.tags) WHERE value = ?)")
        values.append(tag.strip().lower())
    with closing(connect()) as db:
        rows = db.execute(
            "SELECT * FROM notes WHERE "
            + " AND ".join(clauses)
            + " ORDER BY pinned DESC, updated_at DESC, id DESC LIMIT 500",
            values,
        )
        return [to_note(row) for row in rows]


@app.post("/api/notes", status_code=201)
def create_note(note: NoteIn, response: Response) -> Note:
    with transaction() as db:
        note_id = insert(db, note)
        response.headers["Location"] = f"/api/notes/{note_id}"
        return find(db, note_id)


@app.get("/api/notes/{note_id}")
def read_note(note_id: int) -> Note:
    with closing(connect()) as db:
        return find(db, note_id)


@app.put("/api/notes/{note_id}")
def replace_note(note_id: int, note: NoteIn) -> Note:
    with transaction() as db:
        find(db, note_id)
        db.execute(
            "UPDATE notes SET title = ?, body = ?, color = ?, pinned = ?, tags = ?, updated_at = ?"
            " WHERE id = ?",
            (note.title, note.body, note.color, note.pinned, json.dumps(note.tags), now(), note_id),
        )
        return find(db, note_id)


@app.delete("/api/notes/{note_id}", status_code=204)
def delete_note(note_id: int) -> None:
    with transaction() as db:
        find(db, note_id)
        db.execute("DELETE FROM notes WHERE id = ?", (note_id,))


@app.get("/api/tags")
def list_tags() -> list[dict[str, Any]]:
    """Every tag in use with the number of its notes, the most used first."""
    with closing(connect()) as db:
        rows = db.execute(
            "SELECT value AS name, count(*) AS count FROM notes, json_each(notes.tags)"
            " GROUP BY value ORDER BY count DESC, name"
        )
        return [dict(row) for row in rows]


@app.exception_handler(RequestValidationError)
def explain(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say in one sentence what is wrong with a request; the field comes first."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse({"detail": "The body isn't valid JSON."}, status_code=422)
    field = ".".join(str(part) for part in first["loc"][1:])
    reason = str(first["msg"]).removeprefix("Value error, ")
    return JSONResponse({"detail": f"{field}: {reason}" if field else reason}, status_code=422)


app.mount("/", StaticFiles(directory=HERE / "public", html=True))


if __name__ == "__main__":
    prepare()
    uvicorn.run(
        app,
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "3001")),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
