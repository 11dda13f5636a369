"""Nudges through a real Redis: equal ones are one, and none is lost while a worker looks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from rq.serializers import JSONSerializer

from orchestrator.adapters.redis.connection import prefix_of
from orchestrator.adapters.redis.rq_queue import NudgeWorker, RqNudgeQueue
from orchestrator.domain import ids
from orchestrator.domain.sessions.priority import Queue
from tests.integration.redis import looks

INSTALLATION = "an-installation"
SESSION, OTHER = ids.new_session_id(), ids.new_session_id()


class NudgesAtOnce(RqNudgeQueue):
    """Waits until each nudge is in Redis, so that a test knows their order."""

    def nudge(self, session_id: ids.SessionId, queue: Queue) -> None:
        super().nudge(session_id, queue)
        assert self.flush(20)


class Worker(NudgeWorker):
    at_start = staticmethod(lambda: None)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[redis.Redis]:
    socket = tmp_path / "redis.sock"
    argv = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", ""]
    with subprocess.Popen([*argv, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL) as server:
        try:
            retry = Retry(ConstantBackoff(0.05), 200)
            errors = [redis.ConnectionError, FileNotFoundError]
            client = redis.Redis(unix_socket_path=str(socket), retry=retry, retry_on_error=errors)
            client.ping()
            yield client
            client.close()
        finally:
            server.terminate()


@pytest.fixture
def queue(connection: redis.Redis, tmp_path: Path) -> Iterator[RqNudgeQueue]:
    looks.taken.clear()
    looks.on_look.clear()
    diverted: list[ids.SessionId] = []
    url = f"unix://{tmp_path / 'redis.sock'}"
    queue = NudgesAtOnce(url, INSTALLATION, diverted.append, "tests.integration.redis.looks.look")
    yield queue
    queue.close()
    assert not diverted


def work(connection: redis.Redis) -> list[str]:
    """Let one worker empty the queues. Returns the sessions that it looked at, in order."""
    names = [prefix_of(INSTALLATION) + queue.value for queue in Queue]
    worker = Worker(names, connection=connection, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="WARNING")
    return looks.taken


def test_equal_nudges_are_one_until_a_worker_looks(
    connection: redis.Redis, queue: RqNudgeQueue
) -> None:
    for _ in range(100):
        queue.nudge(SESSION, Queue.CRITICAL)
    queue.nudge(OTHER, Queue.CRITICAL)
    assert queue.depth()[Queue.CRITICAL] == 2
    assert work(connection) == [SESSION, OTHER]
    queue.nudge(SESSION, Queue.CRITICAL)
    assert work(connection) == [SESSION, OTHER, SESSION]


def test_a_nudge_is_one_question_to_redis(connection: redis.Redis, queue: RqNudgeQueue) -> None:
    def counts() -> dict[str, int]:
        stats = connection.info("commandstats")
        assert isinstance(stats, dict)
        return {name: stat["calls"] for name, stat in stats.items()}

    queue.nudge(SESSION, Queue.CRITICAL)  # loads the script
    before = counts()
    queue.nudge(OTHER, Queue.CRITICAL)
    after = counts()
    assert after["cmdstat_evalsha"] == before["cmdstat_evalsha"] + 1
    assert not {"cmdstat_multi", "cmdstat_sadd"} & after.keys()
    assert work(connection) == [SESSION, OTHER]


def test_a_nudge_during_a_look_leads_to_exactly_one_more(
    connection: redis.Redis, queue: RqNudgeQueue
) -> None:
    def nudge_twice(_: str) -> None:
        queue.nudge(SESSION, Queue.CRITICAL)
        queue.nudge(SESSION, Queue.CRITICAL)

    looks.on_look.append(nudge_twice)
    queue.nudge(SESSION, Queue.CRITICAL)
    assert work(connection) == [SESSION, SESSION]


def test_a_second_look_that_waits_holds_up_no_urgent_one(
    connection: redis.Redis, queue: RqNudgeQueue
) -> None:
    queue.nudge(SESSION, Queue.LOW)
    queue.nudge(OTHER, Queue.NORMAL)
    queue.nudge(SESSION, Queue.CRITICAL)
    assert work(connection) == [SESSION, OTHER, SESSION]


def test_a_look_that_fails_ends_no_worker_and_blocks_no_later_nudge(
    connection: redis.Redis, queue: RqNudgeQueue
) -> None:
    def fail(_: str) -> None:
        raise ZeroDivisionError

    looks.on_look.append(fail)
    queue.nudge(SESSION, Queue.NORMAL)
    queue.nudge(OTHER, Queue.NORMAL)
    assert work(connection) == [SESSION, OTHER]
    queue.nudge(SESSION, Queue.NORMAL)
    assert work(connection) == [SESSION, OTHER, SESSION]


def test_looks_leave_nothing_behind(connection: redis.Redis, queue: RqNudgeQueue) -> None:
    queue.nudge(SESSION, Queue.NORMAL)
    work(connection)
    assert [key for key in connection.scan_iter() if b":job:" in key or b":wip:" in key] == []
