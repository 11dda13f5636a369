"""Docker answers a few bytes a second: a call ends when its time is over, not when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.docker import client
from orchestrator.domain import errors
from tests.chaos.faults import DOCKER_SOCKET, Part

CALL_S = 0.5  # less than a tenth of what any of these answers takes


@pytest.fixture(name="engine")
def _engine(tmp_path: Path) -> Iterator[Part]:
    with Part(DOCKER_SOCKET, listen=tmp_path / "docker.sock").running() as part:
        yield part


def test_a_client_that_connects_gives_up(engine: Part) -> None:
    url = f"unix://{engine.path}"
    with (
        engine.trickling(),
        pytest.raises(errors.EngineUnavailable, match="does not answer"),
        client.translate_errors("connect", url),
    ):
        client.connect(url, call_s=CALL_S)


def test_a_call_gives_up_and_the_next_one_has_its_own_time(engine: Part) -> None:
    url = f"unix://{engine.path}"
    with contextlib.closing(client.connect(url, call_s=CALL_S)) as api:
        with engine.trickling():
            for _ in range(2):
                with (
                    pytest.raises(errors.EngineUnavailable, match="does not answer"),
                    client.translate_errors("look", url),
                ):
                    api.info()
        engine.cut()
        assert api.ping()
