"""The processes of one machine, as data: what they run, when they are ready, how they stop.

Used by the supervisor. START is the order of starting; stopping has an order of its own, because
what makes work has to end before what carries it out.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config import Settings
from orchestrator.entrypoints import demo

_SECRETS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "SPAWN_ANTHROPIC_API_KEY",
    "SPAWN_FALLBACK_API_KEY",
    "SPAWN_OPENAI_API_KEY",
)
_ASK_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Child:
    """One supervised process."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool]  # asked until it says yes; must not block for long
    ready_within_s: float
    stop_within_s: float  # after SIGTERM; then SIGKILL to its whole group
    needs_key: bool = False  # gets the providers' keys in its environment; nobody else does


def all_children(settings: Settings) -> Sequence[Child]:
    """In the order in which they start: each needs those before it."""
    children = [
        _python(
            "api",
            "orchestrator.entrypoints.api.server",
            _answers(settings.addresses.api_port),
            20,
            True,
        ),
        Child(
            name="nginx",
            argv=[
                find("nginx"),
                "-c",
                f"{settings.places.state_dir}/nginx/nginx.conf",
                *_FOREGROUND,
            ],
            ready=_answers(settings.addresses.http_port),
            ready_within_s=10,
            stop_within_s=5,
        ),
        _python("worker", "orchestrator.entrypoints.jobs", lambda: True, 10),
        _python("daemon", "orchestrator.entrypoints.daemon", _daemon_leads(settings), 30),
    ]
    if settings.llm.demo:
        children.insert(0, _demo(settings))
    if not settings.places.redis_url:
        children.insert(0, _redis(settings))
    return children


# 1. daemon: stops making sandboxes, expiring and publishing;
# 2. worker: finishes the converges under way (they need api, nginx and redis);
# 3. nginx: no more requests from outside;
# 4. api: agents and gateway streams end;
# 5. demo: the gateway, which was its only client, is gone;
# 6. redis: nobody uses it any more; it writes its file.
STOP_ORDER = ("daemon", "worker", "nginx", "api", "demo", "redis")

_FOREGROUND = ("-g", "daemon off;")


def environment(child: Child, base: Mapping[str, str]) -> dict[str, str]:
    """What the child may see: the key only where it is used."""
    if child.needs_key:
        return dict(base)
    return {name: value for name, value in base.items() if name not in _SECRETS}


def find(program: str) -> str:
    """Absolute path of a program; Debian keeps some outside an ordinary user's PATH.
    Raises FileNotFoundError that says how to get it."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        raise FileNotFoundError(f"{program} is not installed; `make up` installs it on Debian")
    return found


def _python(
    name: str, module: str, ready: Callable[[], bool], within_s: float, needs_key: bool = False
) -> Child:
    return Child(
        name=name,
        argv=[sys.executable, "-m", module],
        ready=ready,
        ready_within_s=within_s,
        stop_within_s=20,
        needs_key=needs_key,
    )


def _demo(settings: Settings) -> Child:
    port, pace = str(settings.llm.demo_port), "0.01"  # slow enough to see the progress move
    return Child(
        name="demo",
        argv=[sys.executable, "-m", demo.__name__, "--port", port, "--drip-s", pace],
        ready=lambda: _listens(settings.llm.demo_port),
        ready_within_s=20,
        stop_within_s=5,
    )


def _redis(settings: Settings) -> Child:
    folder = settings.places.redis_socket.parent
    options = {
        "port": "0",  # the socket alone: nobody else on the machine can connect
        "unixsocket": str(settings.places.redis_socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    argv = [find("redis-server")]
    for name, value in options.items():
        argv += [f"--{name}", value]
    return Child(
        name="redis",
        argv=argv,
        ready=lambda: _redis_answers(settings.places.redis_socket),
        ready_within_s=10,
        stop_within_s=10,
    )


def _redis_answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_ASK_S)
            link.connect(str(path))
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=_ASK_S).close()
    except OSError:
        return False
    return True


def _answers(port: int) -> Callable[[], bool]:
    return lambda: _get(port, "/health") == {"status": "ok"}


def _daemon_leads(settings: Settings) -> Callable[[], bool]:
    """It leads and has looked at the hosts' fences: the banner says what they lack."""

    def ready() -> bool:
        if not (settings.places.state_dir / "warnings").exists():
            return False
        said = _get(settings.addresses.http_port, "/ready") or {}
        return bool(said.get("checks", {}).get("daemon", {}).get("ok", False))

    return ready


def _get(port: int, path: str) -> dict[str, Any] | None:
    """A JSON answer of our own, whatever its status; None when nobody answers."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_S)
    try:
        link.request("GET", path, headers={"Host": "localhost"})
        return dict(json.loads(link.getresponse().read()))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        link.close()
