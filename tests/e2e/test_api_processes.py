"""Processes of the API die or restart one after the other, and nobody who asks notices."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import secrets
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation, Response, installed, until
from tests.memory import memory_of

MARKER = "orchestrator.entrypoints.api.server"
KEY = "sk-" + "known-to-one-process"
PROCESSES = 2
ROUNDS = 5  # of each kind of end


@pytest.fixture(scope="module")
def queueing() -> Iterator[Installation]:
    """An installation without hosts: sessions are taken in, and stay in the queue."""
    with installed(ready=False, SPAWN_LOCAL_HOST="false", ANTHROPIC_API_KEY=KEY) as spawn:
        yield spawn


class Clients:
    """Clients that ask all the time, each in a thread. They never repeat a request."""

    def __init__(self, spawn: Installation, session_id: str) -> None:
        self._spawn = spawn
        self._status = f"/api/status/{session_id}"
        self._stop = threading.Event()
        self._name = secrets.token_hex(4)  # another test's clients have other prompts
        self._numbers = itertools.count()
        self._threads = [
            threading.Thread(target=self._repeat, args=(ask,))
            for ask in (self._get, self._get, *[self._poll] * 3, self._post, self._post_without_key)
        ]
        self.counts: Counter[str] = Counter()
        self.refused: list[str] = []
        self.created: list[str] = []  # the ids of the sessions that were created
        self.refused_without_key = 0

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, count: int) -> None:
        """Wait until each kind of client has had that many more answers."""
        before = Counter(self.counts)
        kinds = ("get", "poll", "post", "post without key")
        until(
            lambda: all(self.counts[kind] - before[kind] >= count for kind in kinds),
            60,
            f"{count} more answers of each kind, after {before}; refused: {self.refused}",
        )

    def _repeat(self, ask: Callable[[], None]) -> None:
        while not self._stop.wait(0.1):
            ask()

    def _get(self) -> None:
        self._check("get", self._call("GET", self._status), 200)

    def _poll(self) -> None:
        first = self._call("GET", self._status)
        self._check("get", first, 200)
        if first is not None and first.status == 200:
            unchanged = {"If-None-Match": first.headers["etag"]}
            answer = self._call("GET", f"{self._status}?wait=1", headers=unchanged)
            self._check("poll", answer, 200, 304)

    def _post(self) -> None:
        """With a key the proxy may repeat it: no client sees that a process has died."""
        body = {"prompt": f"keyed {self._name} {next(self._numbers)}", "template": "todo"}
        headers = {"Idempotency-Key": body["prompt"]}
        answer = self._call("POST", "/api/sessions", body, headers=headers)
        self._check("post", answer, 202)
        if answer is not None and answer.status == 202:
            self.created.append(answer.json["session_id"])

    def _post_without_key(self) -> None:
        """Without a key it may fail while its process dies, but never run twice."""
        prompt = f"without {self._name} {next(self._numbers)}"
        answer = self._call("POST", "/api/sessions", {"prompt": prompt, "template": "todo"})
        self.counts["post without key"] += 1
        if answer is not None and answer.status == 202:
            self.created.append(answer.json["session_id"])
        else:
            self.refused_without_key += 1

    def _call(self, method: str, path: str, body: Any = None, **options: Any) -> Response | None:
        try:
            return self._spawn.call(method, path, body, key=self._spawn.operator_key, **options)
        except (OSError, http.client.HTTPException):
            return None

    def _check(self, kind: str, answer: Response | None, *expected: int) -> None:
        self.counts[kind] += 1
        if answer is None or answer.status not in expected:
            text = "no answer" if answer is None else f"{answer.status} {answer.text[:200]}"
            self.refused.append(f"{kind}: {text}")


class Polls:
    """Clients that each wait for a change of one session, in a single request."""

    COUNT = 6

    def __init__(self, spawn: Installation, session_id: str) -> None:
        self._spawn = spawn
        self._path = f"/api/status/{session_id}"
        self._threads = [threading.Thread(target=self._wait) for _ in range(self.COUNT)]
        self.answers: list[int] = []

    def __enter__(self) -> Polls:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def waiting(self) -> int:
        """How many wait at the processes of the API."""
        lines = self._spawn.call("GET", "/metrics", key=self._spawn.operator_key).text.splitlines()
        counts = [line.split()[-1] for line in lines if line.startswith("spawn_waiting_polls{")]
        return sum(int(float(count)) for count in counts)

    def _wait(self) -> None:
        key = self._spawn.operator_key
        tag = self._spawn.call("GET", self._path, key=key).headers["etag"]
        answer = self._spawn.call(
            "GET", f"{self._path}?wait=60", key=key, headers={"If-None-Match": tag}
        )
        self.answers.append(answer.status)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_is_refused_while_processes_of_the_api_end_in_turn(
    queueing: Installation, number: signal.Signals
) -> None:
    spawn = queueing
    watched = spawn.create(template="todo")["session_id"]
    with Clients(spawn, watched) as clients:
        clients.wait(5)
        for turn in range(ROUNDS):
            victim = sorted(spawn.pids(MARKER))[turn % PROCESSES]
            os.kill(victim, number)
            until(lambda: has_replaced(spawn, victim), 60, f"a successor\n{spawn.logs()}")  # noqa: B023 - called at once
            clients.wait(2)
    assert clients.refused == []
    if number is signal.SIGTERM:
        assert clients.refused_without_key == 0
    assert clients.refused_without_key <= ROUNDS
    assert_each_created_once(spawn, clients)


def test_polls_outlive_the_processes_that_they_wait_at(queueing: Installation) -> None:
    """Some wait at the one, then at the other, and both end meanwhile."""
    spawn = queueing
    session_id = spawn.create(template="todo")["session_id"]
    with Polls(spawn, session_id) as polls:
        for victim in sorted(spawn.pids(MARKER)):
            until(lambda: polls.waiting() == polls.COUNT, 60, f"all polls\n{spawn.logs()}")
            os.kill(victim, signal.SIGKILL)
            until(lambda: has_replaced(spawn, victim), 60, f"a successor\n{spawn.logs()}")  # noqa: B023 - called at once
        until(lambda: polls.waiting() == polls.COUNT, 60, f"all polls\n{spawn.logs()}")
        spawn.call("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)
    assert polls.answers == [200] * polls.COUNT


def test_only_the_process_of_the_gateway_has_the_providers_key(queueing: Installation) -> None:
    spawn = queueing
    pids = [spawn.supervisor_pid(), *spawn.pids("")]
    knowing = [pid for pid in pids if KEY.encode() in memory_of(pid)]
    assert knowing == spawn.pids("agents.server")
    for pid in pids:
        assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_killed_supervisor_leaves_no_process_and_no_lock(queueing: Installation) -> None:
    """Its forks inherit what it has open, the lock too. They must not keep it."""
    spawn = queueing
    pids = spawn.pids("")
    os.kill(spawn.supervisor_pid(), signal.SIGKILL)
    until(lambda: not any(map(is_running, pids)), 60, f"{pids} to end\n{spawn.logs()}")
    spawn.spawnctl("up", "--detach")
    assert spawn.call("GET", "/health").status == 200
    assert len(spawn.pids(MARKER)) == PROCESSES


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def has_replaced(spawn: Installation, victim: int) -> bool:
    """Whether all processes serve, and the victim is none of them."""
    pids = spawn.pids(MARKER)
    sockets = [spawn.state_dir / "api" / f"{number}.sock" for number in range(1, PROCESSES + 1)]
    return victim not in pids and len(pids) == PROCESSES and all(map(is_listening, sockets))


def is_listening(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        return connection.connect_ex(str(path)) == 0


def assert_each_created_once(spawn: Installation, clients: Clients) -> None:
    sessions = list_all(spawn)
    prompts = Counter(session["prompt"] for session in sessions)
    assert {prompt: count for prompt, count in prompts.items() if prompt and count > 1} == {}
    assert {session["session_id"] for session in sessions} >= set(clients.created)
    assert len(set(clients.created)) == len(clients.created)


def list_all(spawn: Installation) -> list[dict[str, Any]]:
    sessions: list[dict[str, Any]] = []
    path = "/api/sessions?limit=200"
    while True:
        page = spawn.call("GET", path, key=spawn.operator_key).json
        sessions += page["sessions"]
        if page["next"] is None:
            return sessions
        path = f"/api/sessions?limit=200&cursor={page['next']}"
