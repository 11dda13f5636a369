"""A small stand-in for the control plane's API, for `tests/integration/cli`.

Answers are scripted: `answer()` queues what the next requests to a path get. A path without queued
answers returns its default. Sessions advance by one step of their script per poll, never by time.
"""

from __future__ import annotations

import functools
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.cli.answers import (
    AUDIT,
    CHECKS,
    COST,
    GENERATING,
    HOST,
    KEY,
    KEY_ROW,
    LINES,
    MESSAGES,
    OVERVIEW,
    POOL,
    QUEUED,
    READY,
    REMOTE,
    SANDBOX,
    SESSION,
    SESSIONS,
    TEMPLATE,
    USAGE,
    VERSIONS,
    operator_status,
    status,
)

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """One answer, given once."""

    status: int
    body: Mapping[str, Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReceivedRequest:
    """One request, as it came in."""

    method: str
    path: str
    query: Mapping[str, str]
    query_items: Sequence[tuple[str, str]]  # the same, with repeated names
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """The state of the session between two polls."""

    status: Json
    messages: Sequence[Json] = ()


class CliApi:
    """The server, on a free port of 127.0.0.1: `with CliApi() as api: ... api.port`."""

    def __init__(self) -> None:
        self.received: list[ReceivedRequest] = []
        self.not_modified = 0  # polls that were answered with 304
        self._scripts: dict[str, deque[Scripted]] = defaultdict(deque)
        self._steps: deque[Step] = deque()
        self.script_statuses(QUEUED, GENERATING, READY)
        self._revision = 1
        self.hosts: dict[str, Json] = {host["name"]: dict(host) for host in (HOST, REMOTE)}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        routes = [Route("/{path:path}", self._handle, methods=["GET", "POST", "DELETE"])]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="warning", ws="none", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        serve = functools.partial(self._server.run, sockets=[self._socket])
        self._thread = threading.Thread(target=serve, name="cli-api")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def answer(
        self, path: str, http_status: int, body: Json | str, headers: Json | None = None
    ) -> None:
        """Queue an answer for a request to `path`, after those that are queued already."""
        self._scripts[path].append(
            Scripted(status=http_status, body=body, headers=dict(headers or {}))
        )

    def refuse(self, path: str, http_status: int, code: str, detail: str, **members: Any) -> None:
        """Queue a problem as the answer. `retry_after` becomes the header."""
        wait = members.pop("retry_after", None)
        headers = {"content-type": "application/problem+json"}
        if wait is not None:
            headers["retry-after"] = str(wait)
        body = {"type": "about:blank", "title": code, "status": http_status, "code": code}
        self.answer(path, http_status, {**body, "detail": detail, **members}, headers)

    def script_statuses(self, *statuses: Json) -> None:
        """Set the session's status at each poll. The last one stays."""
        self._steps = deque(Step(status=status, messages=MESSAGES) for status in statuses)

    def script_changes(self, *steps: tuple[Json, Sequence[Json]]) -> None:
        """Set the session's status and messages at each poll. The request for a change is answered
        with the last message of the first step."""
        self._steps = deque(Step(status=status, messages=messages) for status, messages in steps)

    def requests(self, method: str, path: str) -> Sequence[ReceivedRequest]:
        return [
            request for request in self.received if (request.method, request.path) == (method, path)
        ]

    async def _handle(self, request: Request) -> Response:
        path = request.url.path
        self.received.append(
            ReceivedRequest(
                method=request.method,
                path=path,
                query=dict(request.query_params),
                query_items=request.query_params.multi_items(),
                headers=dict(request.headers),
                body=await request.json() if request.method == "POST" else None,
            )
        )
        if self._scripts[path]:
            return _respond(self._scripts[path].popleft())
        if path.startswith("/api/admin") and request.headers.get("authorization") != _BEARER:
            return _problem(401, "unauthorized", "this needs an operator's API key")
        if path == f"/api/status/{SESSION}":
            return self._poll(request)
        if path.startswith(_HOSTS):
            return self._host(request.method, path, self.received[-1].body or {})
        return self._default(request.method, path)

    def _host(self, method: str, path: str, body: Json) -> Response:
        """Hosts join, drain and leave at once."""
        name, _, action = path.removeprefix(_HOSTS).strip("/").partition("/")
        if (method, name) == ("GET", ""):
            return JSONResponse({"hosts": list(self.hosts.values())})
        if (method, name) == ("POST", ""):
            given = {key: body[key] for key in body if key != "machine_id"}
            self.hosts[body["name"]] = {**REMOTE, **given, "used": 0, "warm": 0}
            return JSONResponse(self._shown(body["name"]), 201)
        if name not in self.hosts:
            return _problem(404, "host_unknown", f"there is no host {name!r}; there are: local")
        if method == "DELETE":
            del self.hosts[name]
            return JSONResponse({"name": name, "drain": "leave"}, 202)
        changes: Json = {
            "cordon": {"cordoned": True},
            "uncordon": {"cordoned": False, "drain": "none", "draining": False},
            "drain": {"drain": "wait" if body.get("wait") else "move", "draining": True, "used": 0},
        }
        self.hosts[name].update(changes.get(action, {}))
        return JSONResponse(self._shown(name))

    def _shown(self, name: str) -> Json:
        host = self.hosts[name]
        return {**host, "sandboxes": [] if host["used"] == 0 else [{**SANDBOX, "image": "i:1"}]}

    def _poll(self, request: Request) -> Response:
        """A poll with the current etag gets a 304 and moves on to the next step, if any is left."""
        etag = f'"{self._revision}"'
        if request.headers.get("if-none-match") == etag and len(self._steps) > 1:
            self._steps.popleft()
            self._revision += 1
            self.not_modified += 1
            return Response(status_code=304, headers={"ETag": etag})
        return JSONResponse(self._steps[0].status, headers={"ETag": etag})

    def _default(self, method: str, path: str) -> Response:
        admin, own = f"/api/admin/sessions/{SESSION}", f"/api/sessions/{SESSION}"
        step = self._steps[0]
        change = {"message": step.messages[-1] if step.messages else {}, "session": step.status}
        defaults: dict[tuple[str, str], tuple[int, Json]] = {
            ("GET", "/health"): (200, {"status": "ok"}),
            ("GET", "/ready"): (200, {"ready": True, "checks": CHECKS}),
            ("POST", "/api/sessions"): (202, step.status),
            ("GET", f"{own}/messages"): (200, {"messages": list(step.messages)}),
            ("POST", f"{own}/messages"): (202, change),
            ("GET", f"{own}/versions"): (200, {"versions": VERSIONS}),
            ("POST", f"{own}/versions/1/restore"): (202, change),
            ("GET", f"{own}/usage"): (200, COST),
            ("GET", "/api/templates"): (200, {"templates": [TEMPLATE]}),
            ("GET", "/api/admin/overview"): (200, OVERVIEW),
            ("GET", "/api/admin/pool"): (200, {**POOL, "sandboxes": [SANDBOX]}),
            ("GET", "/api/admin/sessions"): (200, {"sessions": SESSIONS, "next": None}),
            ("GET", "/api/admin/audit"): (200, {"entries": AUDIT, "next": None}),
            ("GET", admin): (200, operator_status(READY, sandbox=SANDBOX)),
            ("DELETE", admin): (202, operator_status(status("destroying", 100))),
            ("POST", f"{admin}/extend"): (200, operator_status(READY)),
            ("GET", f"{admin}/logs"): (200, {"lines": LINES}),
            ("GET", "/api/admin/keys"): (200, {"keys": [KEY_ROW]}),
            ("GET", "/api/admin/usage"): (200, USAGE),
            ("POST", "/api/admin/keys"): (201, {**KEY_ROW, "key": "spk_shownonce"}),
        }
        if (method, path) == ("DELETE", f"/api/admin/keys/{KEY_ROW['key_id']}"):
            return Response(status_code=204)
        if (method, path) not in defaults:
            return _problem(404, "session_unknown", "there is no such session")
        code, body = defaults[method, path]
        headers = {"ETag": f'"{self._revision}"'} if path == "/api/sessions" else {}
        return JSONResponse(body, code, headers)


_HOSTS = "/api/admin/hosts"
_BEARER = f"Bearer {KEY}"


def _respond(answer: Scripted) -> Response:
    if isinstance(answer.body, str):
        return Response(answer.body, answer.status, dict(answer.headers))
    return JSONResponse(dict(answer.body), answer.status, dict(answer.headers))


def _problem(http_status: int, code: str, detail: str) -> Response:
    body = {"type": "about:blank", "title": code, "status": http_status, "code": code}
    return JSONResponse(
        {**body, "detail": detail}, http_status, media_type="application/problem+json"
    )
