"""GET requests to an engine: what counts as an answer, and how its body comes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.adapters.docker import questions, watch
from tests.fakes.waitless import LoopWithoutWaits

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Engine:
    """Answers each connection with these bytes, and hangs up."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.path = str(path)
        self.asked = b""
        self._answer = answer
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.path)
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self.asked = connection.recv(65536)
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@contextmanager
def engine(folder: Path, answer: bytes) -> Iterator[Engine]:
    running = Engine(folder / "engine.sock", answer)
    try:
        yield running
    finally:
        running.close()


async def body_of(path: str) -> bytes:
    async with questions.get(path, "/events") as pieces:
        return b"".join([piece async for piece in pieces])


def ask(folder: Path, answer: bytes) -> bytes:
    with engine(folder, answer) as running:
        return asyncio.run(body_of(running.path))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + chunk(b"one ") + chunk(b"two") + b"0\r\n\r\n",
        HEAD + b"Content-Length: 7\r\n\r\none two",
        b"HTTP/1.0 200 OK\r\n\r\none two",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 7\r\n\r\none two",
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\none two",
    ],
    ids=["chunked", "length", "until it hangs up", "after a 100", "as it was sent"],
)
def test_the_body_is_what_the_engine_sends(tmp_path: Path, answer: bytes) -> None:
    assert ask(tmp_path, answer) == b"one two"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "GET /events: 404 Not Found"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", "GET /events: 301 Moved"),
        (b"", "it hung up without an answer"),
        (b"SSH-2.0-x\r\n\r\n", "illegal status line"),
        (HEAD + b"X: " + b"x" * 100_000, "max_line_length|too long"),
        (CHUNKED + chunk(b"one"), "without sending complete message body"),
        (CHUNKED + b"no length\r\n", "illegal chunk header"),
        (HEAD + b"Content-Length: 7\r\n\r\none", "without sending complete message body"),
    ],
)
def test_anything_else_is_an_error_that_says_how(
    tmp_path: Path, answer: bytes, reason: str
) -> None:
    with pytest.raises(OSError, match=reason):
        ask(tmp_path, answer)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(body_of(str(tmp_path / "engine.sock")))


def test_the_question_has_its_parameters(tmp_path: Path) -> None:
    async def ask_with_filters(path: str) -> None:
        async with questions.get(path, "/events", {"filters": '{"a": 1}'}):
            pass

    with engine(tmp_path, CHUNKED) as running:
        asyncio.run(ask_with_filters(running.path))
    assert running.asked.startswith(b"GET /events?filters=%7B%22a%22%3A+1%7D HTTP/1.1\r\n")


def test_an_engine_that_accepts_and_says_nothing_has_five_seconds(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        loop = LoopWithoutWaits()
        with (
            asyncio.Runner(loop_factory=lambda: loop) as runner,
            pytest.raises(TimeoutError, match="no answer to GET /events in 5 s"),
        ):
            runner.run(body_of(path))
    assert loop.now == pytest.approx(questions.HEAD_TIMEOUT_S)


def test_a_head_that_never_ends_has_five_seconds(tmp_path: Path) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(1)

    async def ask_trickler() -> None:
        path = str(tmp_path / "engine.sock")
        async with await asyncio.start_unix_server(trickle, path):
            await body_of(path)

    loop = LoopWithoutWaits()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, pytest.raises(TimeoutError):
        runner.run(ask_trickler())


def test_events_that_come_together_are_one_turn(tmp_path: Path) -> None:
    """Docker sends each in a chunk of its own."""
    answer = CHUNKED + b"".join(chunk(b"event %d\n" % number) for number in range(100))

    async def count_turns(path: str) -> tuple[int, int]:
        turns = events = 0
        async with questions.get(path, "/events") as pieces:
            async for lines in watch.turns(pieces):
                turns, events = turns + 1, events + len(lines)
        return turns, events

    with engine(tmp_path, answer + b"0\r\n\r\n") as running:
        turns, events = asyncio.run(count_turns(running.path))
    assert events == 100
    assert turns < 10
