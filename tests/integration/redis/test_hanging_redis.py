"""A Redis that hangs holds up nobody: what it does not take goes another way."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.redis import connection
from orchestrator.adapters.redis.rq_queue import RqNudgeQueue
from orchestrator.adapters.redis.sender import BackgroundSender
from orchestrator.domain import errors, ids
from orchestrator.domain.sessions.priority import Queue
from tests.e2e.installation import until
from tests.integration.redis.server import Proxy, RedisServer, running_redis

_DEADLINE_S = 30
_WORKER_S = 60  # RQ by itself would wait for about seven minutes
_WORKER = (
    "import sys; from orchestrator.adapters.redis import connection, rq_queue;"
    "rq_queue.run_workers(connection.connect(sys.argv[1]), 1, '0123456789', lambda: None)"
)
_ROOT = Path(__file__).resolve().parents[3]


class Client:
    """What one process of an installation has of Redis."""

    def __init__(self, url: str, installation: str = "0123456789") -> None:
        self.diverted: list[ids.SessionId] = []
        self.queue = RqNudgeQueue(url, installation, self.diverted.append)

    def nudge(self) -> ids.SessionId:
        session_id = ids.new_session_id()
        self.queue.nudge(session_id, Queue.NORMAL)
        return session_id

    @property
    def waiting(self) -> int:
        return sum(self.queue.depth().values())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


@contextlib.contextmanager
def client_of(url: str, installation: str = "0123456789") -> Iterator[Client]:
    client = Client(url, installation)
    try:
        yield client
    finally:
        client.queue.flush(1.0)
        client.queue.close()


def in_time(work: Callable[[], object]) -> None:
    """Fail if the work has not ended within the deadline."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_DEADLINE_S)
    assert not thread.is_alive(), "the calls waited for Redis"


def test_a_redis_that_hangs_makes_no_caller_wait_and_loses_no_nudge(server: RedisServer) -> None:
    with client_of(server.url) as client:
        client.nudge()  # opens a connection
        assert client.queue.flush(_DEADLINE_S)
        sent: list[ids.SessionId] = []
        server.hang()
        in_time(lambda: sent.extend(client.nudge() for _ in range(100)))
        until(lambda: set(client.diverted) == set(sent), _DEADLINE_S, "all to go another way")
        server.go_on()
        until(lambda: _nudge_arrives(client), _DEADLINE_S, "a nudge to arrive after the hang")
        diverted = len(client.diverted)
        assert _nudge_arrives(client)
        assert len(client.diverted) == diverted, "it takes the usual way again"


def test_while_redis_fails_a_nudge_goes_the_other_way_at_once(tmp_path: Path) -> None:
    with client_of(f"unix://{tmp_path / 'nobody.sock'}") as client:
        first = client.nudge()
        until(lambda: client.diverted == [first], _DEADLINE_S, "the first one to fail")
        second = client.nudge()
        assert client.diverted == [first, second]
        assert client.queue.flush(_DEADLINE_S)
        assert client.diverted == [first, second], "none goes twice"


def test_connections_that_are_cut_silently_make_no_caller_wait(server: RedisServer) -> None:
    with Proxy(target_port=server.port).running() as proxy, client_of(proxy.url) as client:
        client.nudge()
        until(lambda: client.waiting == 1, _DEADLINE_S, "the first nudge")
        proxy.cut()
        in_time(lambda: [client.nudge() for _ in range(100)])
        until(lambda: _nudge_arrives(client), _DEADLINE_S, "a nudge over a new connection")


def test_what_waits_is_bounded_and_the_latest_of_its_kind_counts() -> None:
    blocked, release = threading.Event(), threading.Event()
    sent: list[str] = []
    diverted: list[int] = []
    sender = BackgroundSender()

    def block() -> None:
        blocked.set()
        release.wait(_DEADLINE_S)

    def fail() -> None:
        raise AssertionError("Redis takes it")

    sender.send("first", block, fail)
    assert blocked.wait(_DEADLINE_S)
    for number in range(2000):
        sender.send(
            f"{number}", lambda: sent.append("old"), functools.partial(diverted.append, number)
        )
    assert diverted == list(range(1000, 2000)), "too many wait: these go another way"
    sender.send("7", lambda: sent.append("new"), fail)
    release.set()
    assert sender.flush(_DEADLINE_S)
    assert sent == ["old"] * 999 + ["new"], "the latest replaces one that waits"


def test_a_worker_whose_connection_was_cut_silently_hears_again(
    server: RedisServer, tmp_path: Path
) -> None:
    with Proxy(target_port=server.port).running() as proxy, client_of(server.url) as client:
        log = (tmp_path / "worker.log").open("wb")
        env = {**os.environ, "SPAWN_STATE_DIR": str(tmp_path)}
        argv = [sys.executable, "-c", _WORKER, proxy.url]
        with log, subprocess.Popen(argv, cwd=_ROOT, env=env, stdout=log, stderr=log) as worker:
            try:
                client.nudge()
                until(lambda: client.waiting == 0, _DEADLINE_S, "the worker to take a nudge")
                proxy.cut()
                client.nudge()
                until(lambda: client.waiting == 0, _WORKER_S, "the worker to hear again")
            finally:
                worker.kill()


def test_a_worker_that_redis_refuses_says_so_once_and_waits(
    server: RedisServer, tmp_path: Path
) -> None:
    """A replica, as after a fail-over, takes no writes. A worker that ends at each would be started
    again and again."""
    path = tmp_path / "worker.log"
    log = path.open("wb")
    env = {**os.environ, "SPAWN_STATE_DIR": str(tmp_path)}
    with (
        contextlib.closing(connection.connect(server.url)) as operator,
        client_of(server.url) as client,
    ):
        operator.execute_command("REPLICAOF", "127.0.0.1", "1")
        argv = [sys.executable, "-c", _WORKER, server.url]
        with log, subprocess.Popen(argv, cwd=_ROOT, env=env, stdout=log, stderr=log) as worker:
            try:
                until(lambda: "redis_refuses" in path.read_text(), _DEADLINE_S, "the worker's line")
                operator.execute_command("REPLICAOF", "NO", "ONE")
                client.nudge()
                until(lambda: client.waiting == 0, _WORKER_S, "the worker to take a nudge")
            finally:
                worker.terminate()
    lines = path.read_text().splitlines()
    assert len([line for line in lines if "redis_refuses" in line]) == 1
    assert "ReadOnlyError" in path.read_text()
    assert "Traceback" not in path.read_text()


def test_two_installations_on_one_redis_never_meet(server: RedisServer) -> None:
    with client_of(server.url, "a" * 10) as first, client_of(server.url, "b" * 10) as second:
        first.nudge()
        until(lambda: first.waiting == 1, _DEADLINE_S, "the nudge")
        assert second.waiting == 0


def _nudge_arrives(client: Client) -> bool:
    before = _depth(client)
    client.nudge()
    return client.queue.flush(_DEADLINE_S) and before is not None and _depth(client) == before + 1


def _depth(client: Client) -> int | None:
    try:
        return client.waiting
    except errors.QueueUnavailable:
        return None
