"""Redis is broken. It holds nothing that can't be lost: the daemon does what it passes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from orchestrator.adapters.redis import connection
from orchestrator.domain.sessions.priority import Queue
from tests.chaos.conftest import Scene, cells

Fault = Callable[[Scene], AbstractContextManager[None]]


@contextlib.contextmanager
def commanding(scene: Scene) -> Iterator[Any]:
    """A client of the server itself."""
    with contextlib.closing(connection.connect(scene.redis_server.url)) as client:
        yield client


@contextlib.contextmanager
def read_only(scene: Scene) -> Iterator[None]:
    """It has become a replica: -READONLY to every write."""
    with commanding(scene) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextlib.contextmanager
def master_down(scene: Scene) -> Iterator[None]:
    """A replica without its master: -MASTERDOWN to nearly every command, as -LOADING at a start."""
    with commanding(scene) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")
            client.config_set("replica-serve-stale-data", "yes")


@contextlib.contextmanager
def full(scene: Scene) -> Iterator[None]:
    """-OOM to everything that takes memory."""
    with commanding(scene) as client:
        client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            client.config_set("maxmemory", "0")


@contextlib.contextmanager
def locked(scene: Scene) -> Iterator[None]:
    """-NOAUTH to every new connection, and there are only new ones."""
    with commanding(scene) as client:
        client.config_set("requirepass", "changed")
        scene.redis.cut()
        try:
            yield
        finally:
            client.config_set("requirepass", "")


@contextlib.contextmanager
def wrong_types(scene: Scene) -> Iterator[None]:
    """Something else has written to our keys: -WRONGTYPE to everything that uses the queues."""
    prefix = connection.prefix_of(scene.spawn.instance)
    keys = [f"rq:queue:{prefix}{queue.value}" for queue in Queue]
    with commanding(scene) as client:
        client.delete(*keys)
        for key in keys:
            client.hset(key, "a", "b")
        try:
            yield
        finally:
            client.delete(*keys)


FAULTS: dict[str, Fault] = {
    "refuses": lambda scene: scene.redis.refusing(),
    "hangs": lambda scene: scene.redis.hanging(),
    "trickles": lambda scene: scene.redis.trickling(),
    "lies: a replica": read_only,
    "lies: a replica without its master": master_down,
    "lies: full": full,
    "lies: another password": locked,
    "lies: wrong types": wrong_types,
}


SLOW = ("lies: a replica without its master", "lies: full", "lies: wrong types")


@pytest.mark.parametrize("fault", cells(FAULTS, slow=SLOW))
def test_others_notice_nothing_while_redis(scene: Scene, fault: str) -> None:
    with FAULTS[fault](scene):
        scene.neighbour.check_newcomer()


@pytest.mark.parametrize("fault", ["hangs", "trickles"])
def test_an_operator_sees_the_whole_installation_while_redis(scene: Scene, fault: str) -> None:
    with FAULTS[fault](scene):
        checks = scene.spawn.admin("overview")["checks"]
    assert not checks["redis"]["ok"]
