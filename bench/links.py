"""The time to a working link: bare `docker run`, warm and cold sessions, and a burst."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.e2e.installation import Installation, free_ports, runtime_image, until

_START_CPUS = min(2, os.cpu_count() or 1)  # what a sandbox starts with
_TEMPLATE = "todo"  # static: measures our own time, not the start of a web framework


def bare_run(flags: list[str]) -> float:
    """Seconds from `docker run` of the runtime image with the sandbox's flags to the first 200."""
    (port,) = free_ports(1)
    name = f"spawn-bench-{secrets.token_hex(4)}"
    command = ["docker", "run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:3000", *flags]
    command += ["--entrypoint", "python3", runtime_image(), "-m", "http.server", "3000"]
    started_at = time.perf_counter()
    try:
        subprocess.run(command, check=True, capture_output=True)
        _first_200(port, "localhost")
        return time.perf_counter() - started_at
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)


def sandbox_flags(folder: Path, network: str) -> list[str]:
    """The flags of a sandbox, as the docker CLI spells them."""
    return [
        *("--user", "2100021000:2100021000", "--read-only", "--init", "--cap-drop", "ALL"),
        *("--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=64m"),
        *("--tmpfs", "/app:rw,nosuid,nodev,noexec,size=256m"),
        *("--security-opt", "no-new-privileges", "--memory", "1g", "--memory-swap", "1g"),
        *("--cpu-period", "200000", "--cpu-quota", str(_START_CPUS * 200_000)),
        *("--cpu-shares", "512", "--pids-limit", "256"),
        *("--dns", "127.0.0.1", "--network", network),
        *("--ulimit", "nofile=4096:4096", "--ulimit", "core=0", "--workdir", "/app"),
        *("--log-opt", "max-size=5m", "--log-opt", "max-file=2", "--hostname", "sandbox"),
        *("--volume", f"{folder}:/run/spawn:ro", "--label", "ai.spawn.bench=1"),
    ]


def session(spawn: Installation) -> float:
    """Seconds from POST to the first 200 at the public URL. Ends the session afterwards."""
    session_id, duration_s = to_first_200(spawn, template=_TEMPLATE)
    end(spawn, session_id)
    return duration_s


def burst(spawn: Installation, size: int) -> list[float]:
    """The seconds of `size` sessions that are created at the same time. Ends them afterwards."""
    with ThreadPoolExecutor(size) as clients:
        results = list(clients.map(lambda _: to_first_200(spawn, template=_TEMPLATE), range(size)))
    for session_id, _ in results:
        end(spawn, session_id)
    return [duration_s for _, duration_s in results]


def wait_until_warm(spawn: Installation) -> None:
    """Wait until the pool is full and at rest: no sandbox is in any other state."""

    def is_full() -> bool:
        pool = spawn.admin("pool")
        others = pool["creating"] + pool["claimed"] + pool["stopping"] + pool["broken"]
        return bool(pool["warm"] == pool["warm_target"] and others == 0)

    until(is_full, 120, "a full warm pool")


def to_first_200(spawn: Installation, **request: Any) -> tuple[str, float]:
    """A new session's id, and the seconds from POST to the first 200 at its public URL."""
    started_at = time.perf_counter()
    session = spawn.create(**request)
    url = _url_of(spawn, session)
    _first_200(spawn.http_port, url.split("//")[1].split(":")[0])
    return str(session["session_id"]), time.perf_counter() - started_at


def end(spawn: Installation, session_id: str) -> None:
    """Ask for the end of a session."""
    spawn.call("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)


def _url_of(spawn: Installation, session: dict[str, object]) -> str:
    """Wait by long poll until the session is ready, and return its URL."""
    etag = ""
    while True:
        response = spawn.call(
            "GET",
            f"/api/status/{session['session_id']}?wait=30",
            key=spawn.operator_key,
            headers={"If-None-Match": etag or '"none"'},
        )
        if response.status == 200:
            etag = response.headers["etag"]
            if response.json["status"] == "failed":
                raise AssertionError(response.text)
            if response.json["ready"]:
                return str(response.json["url"])


def _first_200(port: int, host: str) -> None:
    """Wait for the first response 200."""
    deadline = time.perf_counter() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/", headers={"Host": host})
            if connection.getresponse().status == 200:
                return
        connection.close()
        if time.perf_counter() > deadline:
            raise AssertionError(f"no 200 from {host} within 30 s")
        time.sleep(0.002)
