"""Sessions of an installation, as a program uses them: made, waited for, changed, ended."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.e2e.installation import Installation

STATIC = "todo"  # measures our own time, not the start of an interpreter
_ANSWER_S = 120.0
_WARM_S = 300.0
# For many sessions at once. No test uses these ports. All our requests come from one address, and
# this is about what we carry, not about what one may ask.
MANY = {
    "SPAWN_PORTS": "29000-29999",
    "SPAWN_REQUESTS_PER_ADDRESS": "1000000",
    "SPAWN_TRANSFERS_PER_ADDRESS": "10000",
    "SPAWN_POLLS_PER_ADDRESS": "10000",
    "SPAWN_CONNECTIONS_PER_ADDRESS": "10000",
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A session whose app has answered."""

    session_id: str
    url: str
    duration_s: float  # from POST to the first 200 at its public URL

    @property
    def host(self) -> str:
        return self.url.split("//")[1].split(":")[0]


def make(spawn: Installation, **request: Any) -> Made:
    """Create a session, and wait for the first 200."""
    started_at = time.perf_counter()
    session_id = str(spawn.create(**request)["session_id"])
    url = str(_await_status(spawn, session_id, lambda status: status["ready"])["url"])
    made = Made(session_id=session_id, url=url, duration_s=0.0)
    await_200(spawn.http_port, made.host)
    return Made(session_id=session_id, url=url, duration_s=time.perf_counter() - started_at)


def end(spawn: Installation, made: Made) -> None:
    """Ask for the end of a session."""
    spawn.call("DELETE", f"/api/sessions/{made.session_id}", key=spawn.operator_key)


def await_end(spawn: Installation, made: Made) -> None:
    """Wait until nothing is left of a session that was asked to end."""
    _await_status(spawn, made.session_id, lambda status: status["status"] == "destroyed")


def one(spawn: Installation, **request: Any) -> float:
    """Seconds from POST to the first 200, of a session that is ended afterwards."""
    made = make(spawn, **(request or {"template": STATIC}))
    end(spawn, made)
    return made.duration_s


def together(
    spawn: Installation, count: int, *, ends: bool = False, **request: Any
) -> Sequence[Made]:
    """Sessions that are created at the same time. With `ends` each is ended when it is ready."""

    def start(_: int) -> Made:
        made = make(spawn, **(request or {"template": STATIC}))
        if ends:
            end(spawn, made)
        return made

    with ThreadPoolExecutor(count) as clients:
        return list(clients.map(start, range(count)))


def end_all(spawn: Installation, all_made: Sequence[Made]) -> None:
    """Ask for the end of these sessions, and wait until nothing is left of them."""
    for made in all_made:
        end(spawn, made)
    for made in all_made:
        await_end(spawn, made)


def wait_until_warm(spawn: Installation, *, running: int = 0, every_s: float = 0.1) -> None:
    """Wait until the pool is full and at rest: besides warm sandboxes it has those of so many
    running sessions, and no others.

    It is asked every so many seconds: where CPU time is measured, seldom.
    """
    deadline = time.monotonic() + _WARM_S
    while True:
        pool = spawn.admin("pool")
        others = pool["creating"] + pool["stopping"] + pool["broken"] + pool["claimed"]
        if pool["warm"] == pool["warm_target"] and others == running:
            return
        assert time.monotonic() < deadline, f"no full warm pool within {_WARM_S:.0f} s"
        time.sleep(every_s)


def await_200(
    port: int, host: str, is_it: Callable[[bytes], bool] = lambda _body: True, *, path: str = "/"
) -> None:
    """Wait for the first answer 200 with such a body."""
    deadline = time.perf_counter() + _ANSWER_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            if response.status == 200 and is_it(response.read()):
                return
        connection.close()
        if time.perf_counter() > deadline:
            raise AssertionError(f"no such answer from {host} within {_ANSWER_S:.0f} s")
        time.sleep(0.002)


def _await_status(
    spawn: Installation, session_id: str, is_it: Callable[[Any], bool]
) -> dict[str, Any]:
    """Wait by long poll for such a status. Raises AssertionError if the session fails."""
    etag = '"none"'
    while True:
        response = spawn.call(
            "GET",
            f"/api/status/{session_id}?wait=30",
            key=spawn.operator_key,
            headers={"If-None-Match": etag},
        )
        if response.status == 304:
            continue
        assert response.status == 200, response.text
        status = dict(response.json)
        if is_it(status):
            return status
        assert status["status"] != "failed", response.text
        etag = response.headers["etag"]
