"""Redis answers a few bytes a second: a command ends when its time is over, not when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from orchestrator.adapters.redis import connection
from tests.chaos.faults import Part
from tests.integration.redis.server import running_redis

LONG = "x" * 100  # takes twenty seconds to trickle


@pytest.fixture(name="part", params=["tcp", "unix"])
def _part(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Part, str]]:
    with running_redis(tmp_path) as server:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        listen: Path | int = tmp_path / "redis.sock" if request.param == "unix" else 0
        with Part(port, listen=listen).running() as part:
            yield part, f"unix://{listen}" if listen else f"redis://127.0.0.1:{part.port}"


def test_a_command_gives_up_whether_it_connects_or_not(part: tuple[Part, str]) -> None:
    proxy, url = part
    with contextlib.closing(connection.connect(url, socket_timeout=0.5)) as client:
        client.set("key", LONG)
        with proxy.trickling():
            for _ in range(2):  # the second one connects again
                with pytest.raises(redis.TimeoutError):
                    client.get("key")
        proxy.cut()
        assert client.get("key") == LONG.encode()
        assert client.blpop(["nothing"], timeout=0.1) is None
