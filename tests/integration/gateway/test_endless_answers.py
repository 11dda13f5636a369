"""A provider whose answer doesn't end, or is too much to read, takes no more than it should."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.domain.llm.budgets import Budgets
from tests.integration.gateway.world import GatewayWorld, gateway_for, settings_for

MIB = 1024**2
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class EndlessProvider:
    """Answers each request with the same piece, again and again, as long as it is taken."""

    def __init__(self, piece: bytes) -> None:
        self._piece = piece
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(MIB)
                    connection.sendall(HEAD)
                    while True:
                        connection.sendall(self._piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


Serve = Callable[..., GatewayWorld]


@pytest.fixture
def endless(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Serve]:
    """Starts a gateway in front of an endless provider: of the Messages API, or of OpenAI's."""
    with contextlib.ExitStack() as stack:

        def serve(piece: bytes, *, is_openai: bool = False) -> GatewayWorld:
            provider = EndlessProvider(piece)
            stack.callback(provider.close)
            changes: dict[str, Any] = (
                {"openai_base_url": f"{provider.url}/v1", "openai_model": "gpt-x"}
                if is_openai
                else {}
            )
            settings = settings_for(tmp_path, None if is_openai else provider, **changes)
            return stack.enter_context(gateway_for(settings, migrated_sqlite, Budgets()))

        yield serve


PINGS = b'event: ping\ndata: {"type": "ping"}\n\n' * 30_000


DELTA = b'data: {"type": "content_block_delta", "delta": {}}\n\n' * 30_000


def test_a_stream_without_an_end_is_cut(endless: Serve) -> None:
    world = endless(DELTA)
    with pytest.raises(httpx2.RemoteProtocolError):
        world.ask(world.session(), stream=True)


def test_a_stream_that_only_pings_is_no_answer(endless: Serve) -> None:
    world = endless(PINGS)
    assert world.ask(world.session(), stream=True).status_code == 502


def test_a_whole_answer_without_an_end_is_none(endless: Serve) -> None:
    world = endless(PINGS)
    assert world.ask(world.session()).status_code == 502


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("piece", [b"x" * MIB, b"data: " + b"[" * MIB + b"\n"], ids=["x", "deep"])
def test_what_an_endpoint_sends_without_an_end_is_no_answer(
    endless: Serve, piece: bytes, is_stream: bool
) -> None:
    world = endless(piece, is_openai=True)
    assert world.ask(world.session(), stream=is_stream).status_code >= 500
    assert world.metric("spawn_llm_calls_under_way") == 0
