"""Only an answer over the agent socket shows that agents can be heard."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.adapters.agent_socket import AgentSocket


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A server that gives this answer to one request."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_a_listener_that_answers_names_its_process(tmp_path: Path) -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"process":"a"}'
    with answering(tmp_path / "s", answer):
        assert AgentSocket(tmp_path / "s").process() == "a"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnot",
        b'HTTP/1.1 503 Busy\r\nContent-Length: 15\r\n\r\n{"process":"a"}',
    ],
)
def test_any_other_answer_is_none(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / "s", answer):
        assert AgentSocket(tmp_path / "s").process() is None


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """Many agents may connect at the same moment."""
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"process":"a"}'
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        first.connect(str(tmp_path / "s"))  # the queue is full
        answers: list[str | None] = []
        asking = threading.Thread(
            target=lambda: answers.append(AgentSocket(tmp_path / "s").process())
        )
        asking.start()
        listener.accept()[0].close()
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
        asking.join()
    assert answers == ["a"]


def test_a_listener_that_accepts_nothing_does_not_answer(tmp_path: Path) -> None:
    """Its process lives, and connections wait in its queue."""
    assert AgentSocket(tmp_path / "missing").process() is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert AgentSocket(tmp_path / "s").process() is None
