"""How fast the link comes: bare `docker run`, warm and cold sessions, and a burst."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.installation import Installation, free_ports, runtime_image, until

_TEMPLATE = "todo"  # static: what is measured is ours, not the start of somebody's web framework


def bare_run(flags: list[str]) -> float:
    """Seconds from `docker run` of the runtime image with the sandbox's flags to the first 200."""
    (port,) = free_ports(1)
    name = f"spawn-bench-{secrets.token_hex(4)}"
    command = ["docker", "run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:3000", *flags]
    command += ["--entrypoint", "python3", runtime_image(), "-m", "http.server", "3000"]
    began = time.perf_counter()
    try:
        subprocess.run(command, check=True, capture_output=True)
        _first_200(port, "localhost")
        return time.perf_counter() - began
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)


def sandbox_flags(folder: Path, network: str) -> list[str]:
    """The flags of a sandbox, as the docker CLI spells them."""
    return [
        *("--user", "10001:10001", "--read-only", "--init", "--cap-drop", "ALL"),
        *("--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=64m"),
        *("--tmpfs", "/app:rw,nosuid,nodev,noexec,size=256m"),
        *("--security-opt", "no-new-privileges", "--memory", "1g", "--memory-swap", "1g"),
        *("--cpus", "0.5", "--pids-limit", "256", "--dns", "127.0.0.1", "--network", network),
        *("--ulimit", "nofile=4096:4096", "--ulimit", "core=0", "--workdir", "/app"),
        *("--log-opt", "max-size=5m", "--log-opt", "max-file=2", "--hostname", "sandbox"),
        *("--volume", f"{folder}:/run/spawn:ro", "--label", "ai.spawn.bench=1"),
    ]


def session(one: Installation) -> float:
    """Seconds from POST to the first 200 at the public URL; the session is ended afterwards."""
    session_id, took = _to_first_200(one)
    _end(one, session_id)
    return took


def burst(one: Installation, size: int) -> list[float]:
    """`size` sessions asked for at the same instant; ended when all have their link."""
    with ThreadPoolExecutor(size) as clients:
        made = list(clients.map(lambda _: _to_first_200(one), range(size)))
    for session_id, _ in made:
        _end(one, session_id)
    return [took for _, took in made]


def wait_until_warm(one: Installation) -> None:
    """The pool is full and at rest: no sandbox in any other state, no reload pending."""

    def full() -> bool:
        pool = one.admin("pool")
        others = pool["creating"] + pool["claimed"] + pool["stopping"] + pool["broken"]
        return bool(pool["warm"] == pool["warm_target"] and others == 0)

    until(full, 120, "a full warm pool")


def _to_first_200(one: Installation) -> tuple[str, float]:
    began = time.perf_counter()
    made = one.create(template=_TEMPLATE)
    url = _url_of(one, made)
    _first_200(one.http_port, url.split("//")[1].split(":")[0])
    return str(made["session_id"]), time.perf_counter() - began


def _end(one: Installation, session_id: str) -> None:
    one.call("DELETE", f"/api/sessions/{session_id}", key=one.operator_key)


def _url_of(one: Installation, made: dict[str, object]) -> str:
    """Follow the status by long poll, as a program would."""
    etag = ""
    while True:
        answer = one.call(
            "GET",
            f"/api/status/{made['session_id']}?wait=30",
            key=one.operator_key,
            headers={"If-None-Match": etag or '"none"'},
        )
        if answer.status == 200:
            etag = answer.headers["etag"]
            if answer.json["status"] == "failed":
                raise AssertionError(answer.text)
            if answer.json["ready"]:
                return str(answer.json["url"])


def _first_200(port: int, host: str) -> None:
    ends = time.perf_counter() + 30
    while True:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            link.request("GET", "/", headers={"Host": host})
            if link.getresponse().status == 200:
                return
        link.close()
        if time.perf_counter() > ends:
            raise AssertionError(f"no 200 from {host} within 30 s")
        time.sleep(0.002)
