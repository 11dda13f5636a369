"""A Redis that hangs holds up nobody, and what it missed is sent again once it answers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.redis import connection
from orchestrator.adapters.redis.events import RedisEvents
from orchestrator.adapters.redis.links import RedisLinkBoard
from orchestrator.adapters.redis.rq_queue import RqNudgeQueue
from orchestrator.adapters.redis.sender import BackgroundSender
from orchestrator.domain import errors, ids
from orchestrator.domain.sessions.priority import Queue
from orchestrator.ports import LinkGauges
from tests.e2e.installation import until
from tests.integration.redis.server import Proxy, RedisServer, running_redis

_DEADLINE_S = 30
_WORKER_S = 60  # RQ by itself would wait for about seven minutes
_ROOT = Path(__file__).resolve().parents[3]


class Client:
    """What one process of an installation has of Redis."""

    def __init__(self, url: str, installation: str = "0123456789") -> None:
        self.redis = connection.connect(url, socket_timeout=connection.TIMEOUT_S)
        self.sender = BackgroundSender()
        self.events = RedisEvents(self.redis, self.sender, installation)
        self.queue = RqNudgeQueue(self.redis, self.sender, installation)
        self.board = RedisLinkBoard(self.redis, installation)

    def nudge(self) -> None:
        self.queue.nudge(ids.new_session_id(), Queue.NORMAL)

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
        client.sender.flush()
        client.redis.close()


def in_time(work: Callable[[], object]) -> None:
    """Fail if the work has not ended within the deadline."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_DEADLINE_S)
    assert not thread.is_alive(), "the calls waited for Redis"


def test_a_redis_that_hangs_makes_no_caller_wait(server: RedisServer) -> None:
    with client_of(server.url) as client:
        client.events.pool_changed()  # opens a connection
        assert client.sender.flush(_DEADLINE_S)

        def work() -> None:
            for _ in range(100):
                client.events.session_changed(ids.new_session_id())
                client.events.routes_changed()
                client.nudge()

        server.hang()
        in_time(work)
        server.go_on()
        until(lambda: _nudge_arrives(client), _DEADLINE_S, "a nudge to arrive after the hang")


def test_connections_that_are_cut_silently_make_no_caller_wait(server: RedisServer) -> None:
    with Proxy(target_port=server.port).running() as proxy, client_of(proxy.url) as client:
        client.nudge()
        until(lambda: client.waiting == 1, _DEADLINE_S, "the first nudge")
        proxy.cut()
        in_time(lambda: [client.nudge() for _ in range(100)])
        until(lambda: _nudge_arrives(client), _DEADLINE_S, "a nudge over a new connection")


def test_events_reach_subscribers_again_after_a_hang(server: RedisServer) -> None:
    received = threading.Event()

    def listen() -> None:
        with client_of(server.url) as other, other.events.subscribe(["pool"]) as topics:
            for topic in topics:
                if topic == "pool":
                    received.set()
                    return

    with client_of(server.url) as client:
        server.hang()
        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        client.events.pool_changed()
        server.go_on()

        def arrives() -> bool:
            client.events.pool_changed()
            return received.wait(0.1)

        until(arrives, _DEADLINE_S, "an event")
        listening.join(_DEADLINE_S)


def test_what_waits_is_bounded_and_the_latest_of_its_kind_counts() -> None:
    blocked, release = threading.Event(), threading.Event()
    sent: list[str] = []
    sender = BackgroundSender()

    def block() -> None:
        blocked.set()
        release.wait(_DEADLINE_S)

    assert sender.send("first", block)
    assert blocked.wait(_DEADLINE_S)
    accepted = [sender.send(f"{number}", lambda: sent.append("old")) for number in range(2000)]
    assert accepted == [True] * 1000 + [False] * 1000
    assert sender.send("7", lambda: sent.append("new")), "it replaces one that waits"
    release.set()
    assert sender.flush(_DEADLINE_S)
    assert sent == ["old"] * 999 + ["new"]


def test_too_many_nudges_for_a_redis_that_hangs_are_refused(server: RedisServer) -> None:
    with client_of(server.url) as client:
        server.hang()

        def nudge_often() -> None:
            for _ in range(5000):
                client.nudge()

        with pytest.raises(errors.QueueUnavailable):
            nudge_often()
        server.go_on()


def test_a_worker_whose_connection_was_cut_silently_hears_again(
    server: RedisServer, tmp_path: Path
) -> None:
    program = (
        "import sys; from orchestrator.adapters.redis import connection, rq_queue;"
        "rq_queue.run_workers(connection.connect(sys.argv[1]), 1, '0123456789', lambda: None)"
    )
    with Proxy(target_port=server.port).running() as proxy, client_of(server.url) as client:
        log = (tmp_path / "worker.log").open("wb")
        env = {**os.environ, "SPAWN_STATE_DIR": str(tmp_path)}
        argv = [sys.executable, "-c", program, proxy.url]
        with log, subprocess.Popen(argv, cwd=_ROOT, env=env, stdout=log, stderr=log) as worker:
            try:
                client.nudge()
                until(lambda: client.waiting == 0, _DEADLINE_S, "the worker to take a nudge")
                proxy.cut()
                client.nudge()
                until(lambda: client.waiting == 0, _WORKER_S, "the worker to hear again")
            finally:
                worker.kill()


def test_two_installations_on_one_redis_never_meet(server: RedisServer) -> None:
    with client_of(server.url, "a" * 10) as first, client_of(server.url, "b" * 10) as second:
        first.nudge()
        until(lambda: first.waiting == 1, _DEADLINE_S, "the nudge")
        assert second.waiting == 0

        first.board.post(
            [LinkGauges(host="vps1", up=True, docker=True, channels=0, rtt_s=None, reconnects=0)]
        )
        assert len(first.board.read()) == 1
        assert not second.board.read()

        with second.events.subscribe(["pool", "routes"]) as topics:
            assert next(topics) == "", "it is subscribed now"
            first.events.pool_changed()
            assert first.sender.flush(_DEADLINE_S)
            second.events.routes_changed()
            assert next(topic for topic in topics if topic) == "routes"


def _nudge_arrives(client: Client) -> bool:
    before = _depth(client)
    client.nudge()
    return client.sender.flush(_DEADLINE_S) and before is not None and _depth(client) == before + 1


def _depth(client: Client) -> int | None:
    try:
        return client.waiting
    except errors.QueueUnavailable:
        return None
