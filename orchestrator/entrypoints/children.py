"""The processes of one machine, as data: what each runs, when it is ready, how it stops.

The supervisor uses it. `all_children` has the order of the start. STOP_ORDER differs from it:
processes that create work must stop before those that do the work.
"""

from __future__ import annotations

import functools
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

from orchestrator.adapters import api_socket
from orchestrator.adapters.agent_socket import REFUSED_KEYS_PATH, AgentSocket
from orchestrator.config import Settings
from orchestrator.config.groups import API_PROCESSES_MAX
from orchestrator.entrypoints import demo
from orchestrator.entrypoints.liveness import pings
from orchestrator.entrypoints.liveness.pings import Ping

STANDBY_FILE = "standby"  # says what a standby waits for; there is no such file otherwise
_CHECK_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Child:
    """One supervised process."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool]  # polled until it is true; must not block for long
    ready_within_s: float
    stop_within_s: float  # after SIGTERM; then SIGKILL to its whole group
    module: str = ""  # of ours, that a fork of the supervisor runs; "": argv is started
    arguments: Sequence[str] = ()  # of the module
    log: str = ""  # the log that it shares with others, by its name; "": one of its own
    ping: Ping | None = None  # by whose answers it shows that it lives; None: by heartbeats
    members_beat: bool = False  # whether the processes that it starts send heartbeats, too
    needs_key: bool = False  # only such a child gets the providers' keys in its environment


def all_children(settings: Settings) -> Sequence[Child]:
    """The children in the order of their start: each may need the ones before it."""
    children = [
        _python(
            "agents",
            "orchestrator.entrypoints.api.agents.server",
            lambda: AgentSocket(settings.places.agent_socket).process() is not None,
            20,
            ping=pings.http(settings.places.gateway_socket, REFUSED_KEYS_PATH),
            needs_key=True,
        ),
        *_api_processes(settings),
        Child(
            name="nginx",
            argv=[
                find_program("nginx"),
                "-c",
                f"{settings.places.state_dir}/nginx/nginx.conf",
                *_FOREGROUND,
            ],
            ready=_health_check(settings.addresses.probe_address, settings.addresses.http_port),
            ready_within_s=10,
            stop_within_s=5,
            # It answers this one itself. "/health" would have to come from the api.
            ping=pings.http(("127.0.0.1", settings.addresses.control_port), "/routes"),
        ),
        _python("worker", "orchestrator.entrypoints.jobs", lambda: True, 10, members_beat=True),
        _python("daemon", "orchestrator.entrypoints.daemon", _daemon_check(settings), 30),
    ]
    if settings.llm.demo:
        children.insert(0, _demo(settings))
    if not settings.places.redis_url:
        children.insert(0, _redis(settings))
    return children


def standby(settings: Settings) -> Child:
    """The only child while another control plane uses our database."""
    addresses = settings.addresses
    address = addresses.probe_address, addresses.http_port
    module = "orchestrator.entrypoints.leadership.standby"
    return _python(
        "standby", module, _health_check(*address), 20, ping=pings.http(address, "/health")
    )


# 1. daemon: stops making sandboxes, expiring and publishing;
# 2. worker: finishes the running converges (they need api, nginx and redis);
# 3. nginx: no more requests from outside;
# 4. the api processes: nobody asks them any more;
# 5. agents: closes the streams of agents and of the gateway; until here agents could report to
#    the workers, and the api could show what the gateway counts;
# 6. demo: its only client, the gateway, has stopped;
# 7. redis: nobody uses it any more.
# 8. standby: runs alone.
STOP_ORDER = (
    "daemon",
    "worker",
    "nginx",
    *(f"api-{number}" for number in range(1, API_PROCESSES_MAX + 1)),
    "agents",
    "demo",
    "redis",
    "standby",
)

_FOREGROUND = ("-g", "daemon off;")


def find_program(name: str) -> str:
    """The absolute path of a program. Also looks where Debian keeps some programs that aren't in an
    ordinary user's PATH. Raises FileNotFoundError with how to install it."""
    folders = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/sbin"
    path = shutil.which(name, path=folders)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed; `make up` installs it on Debian")
    return path


def _python(
    name: str,
    module: str,
    ready: Callable[[], bool],
    within_s: float,
    *,
    arguments: Sequence[str] = (),
    **options: Any,
) -> Child:
    return Child(
        name=name,
        argv=[sys.executable, "-m", module, *arguments],
        module=module,
        arguments=arguments,
        ready=ready,
        ready_within_s=within_s,
        stop_within_s=20,
        **options,
    )


def _api_processes(settings: Settings) -> Sequence[Child]:
    """They start one after the other: the first one prepares the store for all."""
    return [
        _python(
            f"api-{number}",
            "orchestrator.entrypoints.api.server",
            functools.partial(api_socket.is_healthy, settings.places.api_socket(number)),
            20,
            arguments=(str(number),),
            ping=pings.http(settings.places.api_socket(number), "/health"),
            log="api",
        )
        for number in range(1, settings.processes.api_processes + 1)
    ]


def _demo(settings: Settings) -> Child:
    port, drip_s = str(settings.llm.demo_port), "0.01"  # slow enough to see the progress move
    return Child(
        name="demo",
        argv=[sys.executable, "-m", demo.__name__, "--port", port, "--drip-s", drip_s],
        ready=lambda: _is_listening(settings.llm.demo_port),
        ready_within_s=20,
        stop_within_s=5,
        ping=pings.http(("127.0.0.1", settings.llm.demo_port), "/"),
    )


def _redis(settings: Settings) -> Child:
    folder = settings.places.redis_socket.parent
    options = {
        "port": "0",  # only the socket: other users of the machine can't connect
        "unixsocket": str(settings.places.redis_socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        # It keeps nothing on the disk: with a disk that fails it would refuse every write, and all
        # that it holds is made again.
        "appendonly": "no",
        "save": "",
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    argv = [find_program("redis-server")]
    for name, value in options.items():
        argv += [f"--{name}", value]
    return Child(
        name="redis",
        argv=argv,
        ready=lambda: _is_redis_up(settings.places.redis_socket),
        ready_within_s=10,
        stop_within_s=10,
        ping=pings.redis(settings.places.redis_socket),
    )


def _is_redis_up(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_CHECK_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=_CHECK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _health_check(address: str, port: int) -> Callable[[], bool]:
    """A check that the server there is healthy."""
    return lambda: _get(address, port, "/health") == {"status": "ok"}


def _daemon_check(settings: Settings) -> Callable[[], bool]:
    """A check that the daemon leads and has checked the hosts' fences: the banner of `spawnctl up`
    shows what they lack."""

    def is_ready() -> bool:
        if not (settings.places.state_dir / "warnings").exists():
            return False
        return bool(ready_check(settings, "daemon").get("ok", False))

    return is_ready


def ready_check(settings: Settings, name: str) -> Mapping[str, Any]:
    """What the running control plane says in `/ready` of one of its parts; empty if it doesn't."""
    addresses = settings.addresses
    report = _get(addresses.probe_address, addresses.http_port, "/ready") or {}
    return dict(report.get("checks", {}).get(name, {}))


def _get(address: str, port: int, path: str) -> dict[str, Any] | None:
    """The JSON answer of our own server, whatever its status. None if there is no answer."""
    connection = http.client.HTTPConnection(address, port, timeout=_CHECK_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        return dict(json.loads(connection.getresponse().read()))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
