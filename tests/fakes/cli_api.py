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

Json = dict[str, Any]

KEY = "spk_the-operators-own-key-for-this-test"
SESSION = "ses_" + "abcdefgh" + "2" * 18
OTHER = "ses_" + "abcdefzz" + "3" * 18
LINK = "http://k3j5m7p2q4r6s7t2.apps.localhost:8080/"
CREATED = "2024-01-02T03:04:05+00:00"
ENDED = "2024-01-02T03:04:17+00:00"
EXPIRES = "2099-01-02T03:04:05+00:00"


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


def status(state: str, progress: int, message: str = "", **members: Any) -> Json:
    """A Status."""
    ready = state == "ready"
    return {
        "session_id": SESSION,
        "status": state,
        "progress": progress,
        "message": message or state.capitalize(),
        "ready": ready,
        "url": LINK if ready else None,
        "queue_position": None,
        "phases": [{"name": "queued", "seconds": 0.01}, {"name": "deploying", "seconds": 1.2}],
        "attempt": 1,
        "version": int(ready),
        "change": None,
        "waiting": 0,
        "template": None,
        "reused": False,
        "prompt": "a kanban board",
        "tier": "operator",
        "created_at": CREATED,
        "expires_at": EXPIRES,
        "error": None,
        "offer": None,
        **members,
    }


def message(number: int, state: str, text: str = "make it blue", **members: Any) -> Json:
    """What somebody asked of the app. A text of "" stands for version 1 back."""
    return {
        "number": number,
        "kind": "message" if text else "restore",
        "text": text,
        "restores": None if text else 1,
        "state": state,
        "created_at": CREATED,
        "ended_at": ENDED if state in {"done", "failed"} else None,
        "version": None,
        "summary": "",
        "error": None,
        **members,
    }


def changing(asked: Json, state: str, progress: int, said: str, **members: Any) -> Json:
    """The Status of an app that is being changed: its link stays."""
    change = {name: asked[name] for name in ("number", "kind", "text", "restores")}
    serving: Json = {"url": LINK, "version": 1, "change": change}
    return status(state, progress, said, **serving | members)


def version(number: int, **members: Any) -> Json:
    """A version of the app, made by the message before it."""
    return {
        "version": number,
        "title": "Kanban board",
        "kind": "static",
        "size_bytes": 12_345,
        "created_at": CREATED,
        "healthy": True,
        "running": False,
        "message": number - 1 or None,
        "summary": "",
        "provider": "anthropic",
        **members,
    }


QUEUED = status("queued", 10, "Waiting for a free sandbox", queue_position=2)
GENERATING = status("generating", 58, "Writing app.js")
READY = status("ready", 100, "Your app is running")
FAILED = status(
    "failed",
    100,
    "The app did not start",
    error={"code": "app_not_ready", "message": "The app exited.\nKeyError: 'PORT'"},
)


MESSAGES = [
    message(1, "done", "make it blue", version=2, summary="It is blue now:\n- the header\n- cards"),
    message(2, "done", "", version=1),
    message(
        3,
        "failed",
        "\x1b[31mred\x1b]0;pwned\x07, and a text that is longer than eighty columns are wide",
        error={"code": "app_not_healthy", "message": "The app exited.\nKeyError: 'PORT'"},
    ),
    message(4, "queued", "show the number of cards on top of each column"),
]
VERSIONS = [
    version(1, running=True, summary="Columns and cards that you drag, kept in the browser."),
    version(2, provider="fallback", summary="It is blue now:\n- the header\n- cards"),
    version(3, healthy=False, message=3, kind="python", size_bytes=1_234_567, title="\x1b[31mred"),
]


def operator_status(base: Json, **members: Any) -> Json:
    """What operators see of it."""
    return {
        **base,
        "user_id": "usr_" + "b" * 26,
        "sandbox_id": "sbx_" + "c" * 26,
        "host": "local",
        "revision": 7,
        "history": [
            {"state": "queued", "at": CREATED},
            {"state": base["status"], "at": "2024-01-02T03:04:06.250000+00:00"},
        ],
        **members,
    }


SANDBOX = {
    "sandbox_id": "sbx_" + "c" * 26,
    "state": "claimed",
    "session_id": SESSION,
    "host": "local",
    "port": 21007,
    "slug": "k3j5m7p2q4r6s7t2",
    "routed": True,
    "created_at": CREATED,
    "reason": "",
}
HOST: Json = {
    "name": "local",
    "host_id": "hst_" + "f" * 26,
    "state": "up",
    "reason": "",
    "since": CREATED,
    "cordoned": True,
    "drain": "none",
    "draining": False,
    "slots": 32,
    "used": 4,
    "starting": 1,
    "warm": 2,
    "region": "",
    "labels": {},
    "address": "unix:///var/run/docker.sock",
    "publish_address": "127.0.0.1",
    "host_key": "",
    "image": "spawnai/runtime:0123456789abcdef",
    "shortage": "",
    "starts_at_once": 3,
    "generation": 1,
    "seen_at": CREATED,
    "link": None,
}
REMOTE: Json = {
    **HOST,
    "name": "paris-1",
    "host_id": "hst_" + "g" * 26,
    "cordoned": False,
    "region": "eu",
    "labels": {"disk": "ssd", "gpu": ""},
    "address": "ssh://root@203.0.113.7:2222",
    "publish_address": "203.0.113.7",
    "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXcUZY3bW4XG0yDHbHbkKHgnsTOMbeNWPlsLfLeSpVw",
    "link": {"up": True, "docker": True, "channels": 5, "rtt_ms": 8.25, "reconnects": 1},
}
POOL: Json = {
    "warm_target": 3,
    "warm": 2,
    "creating": 1,
    "claimed": 1,
    "stopping": 0,
    "broken": 0,
    "slots": 32,
    "free_slots": 28,
    "waiting": 0,
    "hosts": [HOST, REMOTE],
    "free_slots_wanted": 2,
    "free_slots_short": 0,
    "queues": {"critical": 0, "high": 2, "normal": 0, "low": 0},
}
CHECKS = {
    "database": {"ok": True, "detail": "answers"},
    "redis": {"ok": True, "detail": "answers"},
    "docker": {"ok": True, "detail": "1 host(s), at least one up"},
    "daemon": {"ok": True, "detail": "box:123 leads"},
    "claude": {"ok": False, "detail": "no ANTHROPIC_API_KEY: templates only"},
}
KEY_ROW = {
    "key_id": "key_" + "d" * 26,
    "name": "ci",
    "user_id": "usr_" + "e" * 26,
    "tier": "pro",
    "role": "user",
    "created_at": CREATED,
    "revoked_at": None,
}
LINES = [{"at": CREATED, "text": f"line {number}"} for number in range(5)]


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
TEMPLATE = {
    "name": "kanban",
    "title": "Kanban board",
    "description": "Columns and cards that you drag.",
    "kind": "static",
    "keywords": ["kanban"],
    "emoji": "\N{CLIPBOARD}",
    "accent": "#4f46e5",
}
SESSIONS = [
    operator_status(READY),
    operator_status({**GENERATING, "session_id": OTHER, "prompt": "\x1b[31mred\x1b]0;pwned\x07"}),
]
_FIGURES = {
    "calls": 12,
    "input_tokens": 12_345_678,
    "output_tokens": 234_567,
    "cache_write_tokens": 0,
    "cache_read_tokens": 1_234_567,
    "cost_usd": 123.456789,
}
COST: Json = {**_FIGURES, "by_provider": [{**_FIGURES, "key": "anthropic"}]}
NO_COST: Json = {**dict.fromkeys(_FIGURES, 0), "by_provider": []}
USAGE = {
    "by": "day",
    "since": CREATED,
    "prices_of": "2026-10-10",
    "rows": [{**_FIGURES, "key": "2026-03-01", "last_at": CREATED}],
    "total": _FIGURES,
}
OVERVIEW = {
    "version": "0.1.0",
    "started_at": CREATED,
    "sessions": {"queued": 0, "ready": 1, "failed": 2},
    "pool": POOL,
    "checks": CHECKS,
    "warnings": ["local: the runtime image is missing"],
}


def _respond(one: Scripted) -> Response:
    if isinstance(one.body, str):
        return Response(one.body, one.status, dict(one.headers))
    return JSONResponse(dict(one.body), one.status, dict(one.headers))


def _problem(http_status: int, code: str, detail: str) -> Response:
    body = {"type": "about:blank", "title": code, "status": http_status, "code": code}
    return JSONResponse(
        {**body, "detail": detail}, http_status, media_type="application/problem+json"
    )
