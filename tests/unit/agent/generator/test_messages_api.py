"""The generator's requests to home, against a server that answers byte by byte as a test says."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agent.generator import messages_api
from agent.generator.messages_api import ConnectionFailed, MessagesApi, Refusal

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = {"messages": ["x" * 4_000_000]}

Handler = Callable[[socket.socket], None]


@contextmanager
def home_that(handle: Handler) -> Iterator[MessagesApi]:
    """A client of a server that takes one connection and hands it to `handle`."""
    folder = tempfile.mkdtemp(prefix="home-")  # a socket's path must be short
    path = f"{folder}/api.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(ConnectionError):
                handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield MessagesApi(socket_path=path, token="tok")
        finally:
            thread.join()
            shutil.rmtree(folder)


def read_request(connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """The first line, the headers and the body."""
    with connection.makefile("rb") as incoming:
        first, *lines = iter(lambda: incoming.readline().decode().strip(), "")
        headers = {name.lower(): value for name, _, value in (s.partition(": ") for s in lines)}
        return first, headers, incoming.read(int(headers["content-length"]))


def answering(*pieces: bytes) -> Handler:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        for piece in pieces:
            connection.sendall(piece)

    return answer


def ask(api: MessagesApi, request: dict[str, Any] | None = None) -> bytes:
    with api.stream(request or {"model": "m"}) as pieces:
        return b"".join(pieces)


def refused(api: MessagesApi, request: dict[str, Any] | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        ask(api, request)
    return caught.value


def test_a_request_has_what_the_messages_api_wants() -> None:
    requests = []

    def handle(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        connection.sendall(OK + b"Content-Length: 2\r\n\r\nhi")

    with home_that(handle) as api:
        assert ask(api, {"model": "m", "text": "é\u2028"}) == b"hi"
    ((first, headers, body),) = requests
    assert first == "POST /v1/messages HTTP/1.1"
    assert (headers["x-api-key"], headers["host"]) == ("tok", "home")
    assert headers["content-type"] == "application/json"
    assert headers["anthropic-version"] == messages_api.VERSION
    assert json.loads(body) == {"model": "m", "text": "é\u2028"}


@pytest.mark.parametrize(
    "answer",
    [
        [CHUNKED, b"2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"],
        [OK + b"\r\n", b"hel", b"lo"],  # ends with the connection, as in HTTP/1.0
        [b"HTTP/1.1 100 Continue\r\n\r\n", OK, b"Content-Length: 5\r\n\r\nhello"],
        [bytes([byte]) for byte in CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
    ],
)
def test_a_stream_is_read_however_it_is_framed(answer: list[bytes]) -> None:
    with home_that(answering(*answer)) as api:
        assert ask(api) == b"hello"


def test_pieces_are_given_as_they_arrive() -> None:
    is_read = threading.Event()

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED + b"3\r\none\r\n")
        assert is_read.wait(30)
        connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    with home_that(handle) as api, api.stream({}) as pieces:
        assert next(pieces) == b"one"
        is_read.set()
        assert list(pieces) == [b"two"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "no connection to the model"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "no connection to the model"),
        ([OK], "no connection to the model"),
        ([OK + b"X: " + b"x" * 100_000], "no connection to the model"),
        ([CHUNKED, b"5\r\nhel"], "broke off"),
        ([CHUNKED, b"zz\r\n"], "broke off"),
        ([OK + b"Content-Length: 9\r\n\r\nhello"], "broke off"),
    ],
)
def test_an_answer_that_breaks_off_or_is_none_is_a_failed_connection(
    answer: list[bytes], message: str
) -> None:
    with home_that(answering(*answer)) as api, pytest.raises(ConnectionFailed, match=message):
        ask(api)


def test_silence_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_api, "SILENCE_LIMIT_S", 0.05)
    is_over = threading.Event()

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED + b"3\r\none\r\n")
        is_over.wait(30)

    with home_that(handle) as api:
        try:
            with api.stream({}) as pieces:
                assert next(pieces) == b"one"
                with pytest.raises(ConnectionFailed, match="TimeoutError"):
                    next(pieces)
        finally:
            is_over.set()


def test_a_home_that_is_away_is_a_failed_connection(tmp_path: Path) -> None:
    api = MessagesApi(socket_path=str(tmp_path / "none"), token="tok")
    with pytest.raises(ConnectionFailed, match=r"no connection to the model: .*No such file"):
        ask(api)


def refusal(status: str, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def test_a_refusal_has_status_error_and_headers() -> None:
    error = {"type": "rate_limit_error", "message": "slower"}
    body = json.dumps({"type": "error", "error": error}).encode()
    with home_that(answering(refusal("429 Too Many", body, "Retry-After: 7"))) as api:
        answer = refused(api)
    assert (answer.status, answer.error, answer.headers["retry-after"]) == (429, error, "7")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<h1>no</h1>",
        b"[]",
        b'{"error": "odd"}',
        b"[" * 50_000,
        b'{"error": {}}' + b" " * 9**6,
    ],
)
def test_a_refusal_without_an_error_is_read_as_far_as_it_goes(body: bytes) -> None:
    with home_that(answering(refusal("502 Bad Gateway", body))) as api:
        answer = refused(api)
    assert (answer.status, answer.error) == (502, {})


def test_a_refusal_that_breaks_off_still_has_its_status() -> None:
    cut = refusal("401 Unauthorized", b"x" * 50)[:-20]
    with home_that(answering(cut)) as api:
        assert refused(api).status == 401


def test_a_request_that_is_refused_before_it_was_read_is_refused() -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(refusal("413 Content Too Large", b"{}"))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100_000)  # and no more: the rest of the request can't be sent

    with home_that(handle) as api:
        assert refused(api, LARGE).status == 413
