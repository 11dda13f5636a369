"""Serves the real page over a scripted API: for `tests/e2e/test_page*.py`, and for page developers.

With each poll a session advances by one step of its script (`scripts.py`), never with time. A test
that checks each step limits the number of steps. Tests start `PageApi` in a thread.
`python -m tests.fakes.page.api --port 8090` serves in the foreground.
"""

import argparse
import json
import re
import socket
import threading
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from orchestrator.entrypoints.api.views import short_prompt
from tests.fakes.page.scripts import (
    CHANGED,
    COPIED,
    GONE,
    RESTORED,
    WAITING_MAX,
    WRITTEN,
    Course,
    Json,
    Scripted,
    Step,
)

ROOT = Path(__file__).parents[3] / "orchestrator"
WEB = ROOT / "entrypoints" / "api" / "web"
CATALOG = ROOT / "catalog"
CSP = (  # stricter than the real one: a page that works here works everywhere
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
TTLS_S = {"30m": 1800, "2h": 7200, "8h": 28800, "24h": 86400}


class PageApi:
    """The server, on a free port of 127.0.0.1: `with PageApi() as api: ... api.url`."""

    def __init__(self, *, port: int = 0) -> None:
        self.sessions: dict[str, Scripted] = {}
        self.keys: list[str] = []  # the Idempotency-Key of each POST
        self.not_modified = 0  # number of 304 answers
        self.unanswered = 0  # number of polls that got a problem
        self.session_requests: list[Json] = []  # bodies of POST /api/sessions
        self.reads: list[
            str
        ] = []  # GETs of messages, versions and usage: the last part of the path
        self.courses: deque[Course] = deque()  # for the next messages; if empty, they succeed
        self.reuses = False  # whether an equal prompt gets the earlier app
        self.scripts: deque[tuple[Step, ...]] = (
            deque()
        )  # for the next sessions; if empty, the usual scripts
        self.refusals: deque[tuple[int, Json]] = (
            deque()
        )  # answers to the next POST or DELETE requests
        self.is_away = False  # polls get this problem
        self.problem: tuple[int, Json] = (503, {"code": "unavailable", "detail": "it is away"})
        self.date: datetime | None = None  # the Date of the list's answer; without it none has one
        self.steps: int | None = None  # steps that sessions may still take; None: any number
        self.templates = [
            json.loads(path.read_text()) for path in sorted(CATALOG.glob("*/spawn.json"))
        ]
        self._results: dict[str, str] = {}  # Idempotency-Key -> session id or message number
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        # The page's clock stands still: the page would take the difference for a wrong clock.
        config = uvicorn.Config(
            self._app(), log_level="warning", ws="none", lifespan="off", date_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.serve, name="page-api")

    def _app(self) -> Starlette:
        session = "/api/sessions/{id}"
        return Starlette(
            routes=[
                Route("/", self._page),
                Mount("/static", StaticFiles(directory=WEB)),
                Route("/api/templates", self._templates),
                Route("/api/sessions", self._list, methods=["GET"]),
                Route("/api/sessions", self._create, methods=["POST"]),
                Route("/api/status/{id}", self._status),
                Route(f"{session}/extend", self._extend, methods=["POST"]),
                Route(f"{session}/logs", self._logs),
                Route(f"{session}/messages", self._messages),
                Route(f"{session}/messages", self._say, methods=["POST"]),
                Route(f"{session}/versions", self._versions),
                Route(
                    f"{session}/versions/{{version:int}}/restore", self._restore, methods=["POST"]
                ),
                Route(f"{session}/usage", self._usage),
                Route(session, self._end, methods=["DELETE"]),
            ]
        )

    def serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def refuse(self, status: int, code: str, detail: str, **members: Any) -> None:
        """Refuse the next POST or DELETE. `retry_after` becomes the header of that name."""
        body = {"type": "about:blank", "title": code, "status": status, "code": code}
        self.refusals.append((status, {**body, "detail": detail, **members}))

    async def _page(self, request: Request) -> Response:
        if ".apps." in request.headers["host"]:
            return HTMLResponse("<!doctype html><title>The app</title><h1>It runs</h1>")
        return FileResponse(WEB / "index.html", headers={"Content-Security-Policy": CSP})

    async def _templates(self, request: Request) -> Response:
        return JSONResponse({"templates": self.templates})

    async def _list(self, request: Request) -> Response:
        user = request.cookies.get("spawn_user")
        own = [session for session in self.sessions.values() if session.user == user]
        own.sort(key=lambda session: session.created_at, reverse=True)
        statuses = [session.status(self.port) for session in own]
        listed = [{**status, **short_prompt(status)} for status in statuses]
        answer = JSONResponse({"sessions": listed})
        if user is None:
            answer.set_cookie("spawn_user", uuid.uuid4().hex, httponly=True, samesite="lax")
        if self.date is not None:
            answer.headers["date"] = format_datetime(self.date, usegmt=True)
        return answer

    async def _create(self, request: Request) -> Response:
        self.keys.append(request.headers["idempotency-key"])
        if self.refusals:
            return _problem(*self.refusals.popleft())
        body = await request.json()
        self.session_requests.append(body)
        if not body["prompt"].strip() and body["template"] is None:
            detail = "say what the app should be, or name a template"
            return _problem(422, {"code": "prompt_empty", "detail": detail, "field": "prompt"})
        known_id = self._results.get(self.keys[-1])
        user = request.cookies["spawn_user"]
        session = self.sessions[known_id] if known_id else self._new(user, body)
        self._results[self.keys[-1]] = session.id
        return JSONResponse(session.status(self.port), 202)

    def _new(self, user: str, body: Json) -> Scripted:
        now = datetime.now(UTC)
        usual_script = COPIED if body["template"] else WRITTEN
        session = Scripted(
            id=f"ses_{uuid.uuid4().hex[:26]}",
            user=user,
            slug=uuid.uuid4().hex[:16],
            prompt=body["prompt"],
            template=body["template"],
            created_at=now,
            expires_at=now + timedelta(seconds=TTLS_S[body["ttl"]]),
            script=self.scripts.popleft() if self.scripts else usual_script,
            reused=self.reuses and not body.get("fresh", False),
        )
        return self.sessions.setdefault(session.id, session)

    async def _status(self, request: Request) -> Response:
        if self.is_away:
            self.unanswered += 1
            status, problem = self.problem
            return _problem(status, dict(problem))
        session = self.sessions.get(request.path_params["id"])
        if session is None:
            return _problem(404, {"code": "session_unknown", "detail": "there is no such session"})
        if self.steps != 0:
            session.advance()
            self.steps = None if self.steps is None else self.steps - 1
        etag = f'"{session.revision}"'
        if request.headers.get("if-none-match") == etag:
            self.not_modified += 1
            return Response(status_code=304, headers={"ETag": etag})
        return JSONResponse(session.status(self.port), headers={"ETag": etag})

    async def _extend(self, request: Request) -> Response:
        if self.refusals:
            return _problem(*self.refusals.popleft())
        session = self.sessions[request.path_params["id"]]
        ttl_s = TTLS_S[(await request.json())["ttl"]]
        session.expires_at = datetime.now(UTC) + timedelta(seconds=ttl_s)
        session.revision += 1
        return JSONResponse(session.status(self.port))

    async def _end(self, request: Request) -> Response:
        if self.refusals:
            return _problem(*self.refusals.popleft())
        session = self.sessions[request.path_params["id"]]
        ending = Step(state="destroying", progress=100, message="Cleaning up")
        session.script, session.at = (session.step, ending, GONE), 0
        return JSONResponse(session.status(self.port), 202)

    def _record_read(self, request: Request) -> Scripted:
        self.reads.append(request.url.path.rsplit("/", 1)[1])
        return self.sessions[request.path_params["id"]]

    async def _messages(self, request: Request) -> Response:
        return JSONResponse({"messages": self._record_read(request).messages})

    async def _versions(self, request: Request) -> Response:
        session = self._record_read(request)
        versions = [
            {**version, "running": version["version"] == session.version}
            for version in session.versions
        ]
        return JSONResponse({"versions": versions})

    async def _usage(self, request: Request) -> Response:
        return JSONResponse(self._record_read(request).usage())

    async def _say(self, request: Request) -> Response:
        text = (await request.json())["text"]
        if not text.strip():
            detail = "say what should change"
            return _problem(422, {"code": "message_empty", "detail": detail, "field": "text"})
        course = self.courses.popleft() if self.courses and not self.refusals else CHANGED
        return self._add_change(request, text, None, course)

    async def _restore(self, request: Request) -> Response:
        return self._add_change(request, "", request.path_params["version"], RESTORED)

    def _add_change(
        self, request: Request, text: str, restores: int | None, course: Course
    ) -> Response:
        self.keys.append(request.headers["idempotency-key"])
        if self.refusals:
            return _problem(*self.refusals.popleft())
        session = self.sessions[request.path_params["id"]]
        if session.is_over:
            return _problem(409, {"code": "session_ending", "detail": "this session has ended"})
        if session.waiting >= WAITING_MAX:
            full = {"code": "messages_full", "detail": "five wait", "limit": WAITING_MAX}
            return _problem(429, {**full, "retry_after": 30})
        number = self._results.get(self.keys[-1])
        if number:
            message = session.messages[int(number) - 1]
        else:
            message = session.add_change(text, restores, course)
        self._results[self.keys[-1]] = str(message["number"])
        return JSONResponse({"message": message, "session": session.status(self.port)}, 202)

    async def _logs(self, request: Request) -> Response:
        line = {"at": "2030-01-02T03:04:05+00:00", "text": "listening on 127.0.0.1:3001"}
        return JSONResponse({"lines": [line]})


def _problem(status: int, body: Json) -> Response:
    wait_s = re.sub(r"\D", "", str(body.pop("retry_after", "")))
    headers = {"Retry-After": wait_s} if wait_s else {}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the page over a scripted API.")
    parser.add_argument("--port", type=int, default=8090)
    server = PageApi(port=parser.parse_args().port)
    print(server.url, flush=True)
    server.serve()
