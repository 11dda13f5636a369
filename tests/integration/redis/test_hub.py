"""A hub whose Redis says nothing more goes on, knows it, and listens again afterwards."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.installation import until
from tests.integration.redis.server import RedisServer, running_redis

_ROOT = Path(__file__).resolve().parents[3]
_DEADLINE_S = 60


@contextlib.contextmanager
def hanging(server: RedisServer) -> Iterator[None]:
    server.hang()
    try:
        yield
    finally:
        server.go_on()


@contextlib.contextmanager
def opinions_of_hub(url: str) -> Iterator[list[str]]:
    """What a hub in another process thinks of its connection, as it changes."""
    command = [sys.executable, "-m", "tests.integration.redis.listening", url]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        opinions: list[str] = []
        reading = threading.Thread(
            target=lambda: [opinions.append(line.strip()) for line in process.stdout or ()]
        )
        reading.start()
        try:
            yield opinions
        finally:
            process.kill()
            reading.join()


@pytest.mark.parametrize("trouble", [RedisServer.behind_a_black_hole, hanging])
def test_a_hub_notices_that_redis_is_silent_and_listens_again_afterwards(
    tmp_path: Path, trouble: Callable[[RedisServer], AbstractContextManager[None]]
) -> None:
    with running_redis(tmp_path) as server, opinions_of_hub(server.url) as opinions:
        await_opinion(opinions, "connected")
        with trouble(server):
            await_opinion(opinions, "disconnected")
        await_opinion(opinions, "connected")


def await_opinion(opinions: list[str], opinion: str) -> None:
    until(lambda: opinions and opinions[-1] == opinion, _DEADLINE_S, f"{opinion}: {opinions}")
