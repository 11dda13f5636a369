"""A small stand-in for the control plane's API, for `tests/integration/test_cli*.py`.

Answers are scripted: `answer()` queues what the next requests to a path get; without a script a
path gives the usual answer. Sessions advance by one step of their script per poll, never by time.
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
class Seen:
    """One request, as it came in."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """How everything is between two polls."""

    status: Json
    messages: Sequence[Json] = ()


class CliApi:
    """The server, on a free port of 127.0.0.1: `with CliApi() as api: ... api.port`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.not_modified = 0  # polls that were answered with 304
        self._scripts: dict[str, deque[Scripted]] = defaultdict(deque)
        self._story: deque[Step] = deque()
        self.tell(QUEUED, GENERATING, READY)
        self._revision = 1
        self.hosts: dict[str, Json] = {one["name"]: dict(one) for one in (HOST, REMOTE)}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        routes = [Route("/{path:path}", self._any, methods=["GET", "POST", "DELETE"])]
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
        """What the next request to `path` gets, once those queued before are used up."""
        self._scripts[path].append(
            Scripted(status=http_status, body=body, headers=dict(headers or {}))
        )

    def refuse(self, path: str, http_status: int, code: str, detail: str, **members: Any) -> None:
        """The same, as a problem. `retry_after` becomes the header."""
        wait = members.pop("retry_after", None)
        headers = {"content-type": "application/problem+json"}
        if wait is not None:
            headers["retry-after"] = str(wait)
        body = {"type": "about:blank", "title": code, "status": http_status, "code": code}
        self.answer(path, http_status, {**body, "detail": detail, **members}, headers)

    def tell(self, *story: Json) -> None:
        """The next session's way: its status at each poll; the last one stays."""
        self._story = deque(Step(status=one, messages=MESSAGES) for one in story)

    def tell_changes(self, *story: tuple[Json, Sequence[Json]]) -> None:
        """The same for changes: the status, and the messages with it. What is asked for is answered
        with the last one of the first step."""
        self._story = deque(Step(status=one, messages=said) for one, said in story)

    def requests(self, method: str, path: str) -> Sequence[Seen]:
        return [one for one in self.seen if (one.method, one.path) == (method, path)]

    async def _any(self, request: Request) -> Response:
        path = request.url.path
        self.seen.append(
            Seen(
                method=request.method,
                path=path,
                query=dict(request.query_params),
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
            return self._host(request.method, path, self.seen[-1].body or {})
        return self._usual(request.method, path)

    def _host(self, method: str, path: str, body: Json) -> Response:
        """Hosts that come up, are emptied and leave at once."""
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
        found = self.hosts[name]
        return {**found, "sandboxes": [] if found["used"] == 0 else [{**SANDBOX, "image": "i:1"}]}

    def _poll(self, request: Request) -> Response:
        """A change at each poll that knows the last one, and a 304 in between."""
        etag = f'"{self._revision}"'
        known = request.headers.get("if-none-match")
        if known == etag and len(self._story) > 1:
            self._story.popleft()
            self._revision += 1
            self.not_modified += 1
            return Response(status_code=304, headers={"ETag": etag})
        return JSONResponse(self._story[0].status, headers={"ETag": etag})

    def _usual(self, method: str, path: str) -> Response:
        one, own = f"/api/admin/sessions/{SESSION}", f"/api/sessions/{SESSION}"
        now = self._story[0]
        asked = {"message": now.messages[-1] if now.messages else {}, "session": now.status}
        usual: dict[tuple[str, str], tuple[int, Json]] = {
            ("GET", "/health"): (200, {"status": "ok"}),
            ("GET", "/ready"): (200, {"ready": True, "checks": CHECKS}),
            ("POST", "/api/sessions"): (202, now.status),
            ("GET", f"{own}/messages"): (200, {"messages": list(now.messages)}),
            ("POST", f"{own}/messages"): (202, asked),
            ("GET", f"{own}/versions"): (200, {"versions": VERSIONS}),
            ("POST", f"{own}/versions/1/restore"): (202, asked),
            ("GET", f"{own}/usage"): (200, COST),
            ("GET", "/api/templates"): (200, {"templates": [TEMPLATE]}),
            ("GET", "/api/admin/overview"): (200, OVERVIEW),
            ("GET", "/api/admin/pool"): (200, {**POOL, "sandboxes": [SANDBOX]}),
            ("GET", "/api/admin/sessions"): (200, {"sessions": SESSIONS}),
            ("GET", one): (200, operator_status(READY, sandbox=SANDBOX)),
            ("DELETE", one): (202, operator_status(status("destroying", 100))),
            ("POST", f"{one}/extend"): (200, operator_status(READY)),
            ("GET", f"{one}/logs"): (200, {"lines": LINES}),
            ("GET", "/api/admin/keys"): (200, {"keys": [KEY_ROW]}),
            ("GET", "/api/admin/usage"): (200, USAGE),
            ("POST", "/api/admin/keys"): (201, {**KEY_ROW, "key": "spk_shownonce"}),
        }
        if (method, path) == ("DELETE", f"/api/admin/keys/{KEY_ROW['key_id']}"):
            return Response(status_code=204)
        if (method, path) not in usual:
            return _problem(404, "session_unknown", "there is no such session")
        code, body = usual[method, path]
        headers = {"ETag": f'"{self._revision}"'} if path == "/api/sessions" else {}
        return JSONResponse(body, code, headers)


_HOSTS = "/api/admin/hosts"
_BEARER = f"Bearer {KEY}"


def _respond(one: Scripted) -> Response:
    if isinstance(one.body, str):
        return Response(one.body, one.status, dict(one.headers))
    return JSONResponse(dict(one.body), one.status, dict(one.headers))


def _problem(http_status: int, code: str, detail: str) -> Response:
    body = {"type": "about:blank", "title": code, "status": http_status, "code": code}
    return JSONResponse(
        {**body, "detail": detail}, http_status, media_type="application/problem+json"
    )
