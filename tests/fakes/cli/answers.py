"""What the control plane answers in the tests of the command line.

`tests/fakes/cli/api.py` returns these unless a test scripts something else.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

KEY = "spk_the-operators-own-key-for-this-test"
SESSION = "ses_" + "abcdefgh" + "2" * 18
OTHER = "ses_" + "abcdefzz" + "3" * 18
LINK = "http://k3j5m7p2q4r6s7t2.apps.localhost:8080/"
CREATED = "2024-01-02T03:04:05+00:00"
ENDED = "2024-01-02T03:04:17+00:00"
EXPIRES = "2099-01-02T03:04:05+00:00"


def status(state: str, progress: int, message: str = "", **members: Any) -> Json:
    """The Status of a session."""
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
    """A user's message, or for a text of "" the wish to restore version 1."""
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


def changing(request: Json, state: str, progress: int, text: str, **members: Any) -> Json:
    """The Status of a session while its app is changed: it keeps its link."""
    change = {name: request[name] for name in ("number", "kind", "text", "restores")}
    serving: Json = {"url": LINK, "version": 1, "change": change}
    return status(state, progress, text, **serving | members)


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
    """A session's Status with the members that operators see."""
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
    "ports_set_aside": [],
    "cpus": 2,
    "changes_cpus": True,
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
    "queues": {"critical": 0, "high": 2, "normal": 0},
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
AUDIT = [
    {
        "at": "2026-01-02T03:04:05+00:00",
        "actor": "daemon",
        "action": "host_lost",
        "subject": "a-host-with-a-rather-long-name",
        "detail": "3 sandboxes; \x1b[31mno answer",
    },
    {
        "at": "2026-01-02T03:04:04+00:00",
        "actor": "usr_" + "o" * 26,
        "action": "session_ended",
        "subject": SESSION,
        "detail": "",
    },
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
