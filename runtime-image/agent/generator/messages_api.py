"""Sends requests to the Messages API at home's gateway, and reads the streams. Used by `model.py`.

Home is close by and ours: a UNIX socket, no TLS, no redirects, no compression. The Anthropic SDK
can do much more, and takes seconds of the sandbox's processor to load.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h11

SILENCE_LIMIT_S = 180.0
"""The service sends pings while a model thinks, so after this much silence the connection is dead.
Before the first event home may let us wait for our turn."""
CONNECT_LIMIT_S = 10.0
CHUNK_BYTES = 64 * 1024
REFUSAL_MAX_BYTES = 64 * 1024
VERSION = "2026-10-21"


class ConnectionFailed(Exception):
    """There was no answer, or it broke off. The message says how."""


class Refusal(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.error = error  # the `error` object of the body; empty if there is none
        self.headers = headers  # names in lower case


@dataclass(frozen=True, kw_only=True)
class MessagesApi:
    """Home's gateway. Each request opens a connection of its own, like all of the agent's."""

    socket_path: str
    token: str  # of the session

    @contextlib.contextmanager
    def stream(self, request: Mapping[str, Any]) -> Iterator[Iterator[bytes]]:
        """Send a request for a stream; gives the pieces of the stream's body as they arrive.

        Raises ConnectionFailed, also while the pieces are read, and Refusal.
        """
        with socket.socket(socket.AF_UNIX) as sock:
            connection = h11.Connection(h11.CLIENT)
            try:
                sock.settimeout(CONNECT_LIMIT_S)
                sock.connect(self.socket_path)
                sock.settimeout(SILENCE_LIMIT_S)
                # Home may refuse and close before it has read everything: look for that answer.
                with contextlib.suppress(ConnectionError):
                    self._send(connection, sock, json.dumps(request).encode())
                response = _receive_head(connection, sock)
                if response.status_code != 200:
                    raise _read_refusal(connection, sock, response)
            except (OSError, h11.RemoteProtocolError) as error:
                raise ConnectionFailed(f"no connection to the model: {error}") from error
            yield _pieces(connection, sock)

    def _send(self, connection: h11.Connection, sock: socket.socket, body: bytes) -> None:
        head = h11.Request(
            method="POST",
            target="/v1/messages",
            headers=[
                ("Host", "home"),
                ("X-Api-Key", self.token),
                ("Anthropic-Version", VERSION),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Accept", "text/event-stream"),
                ("Connection", "close"),
            ],
        )
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            sock.sendall(connection.send(event) or b"")


def _receive_head(connection: h11.Connection, sock: socket.socket) -> h11.Response:
    while not isinstance(event := _next_event(connection, sock), h11.Response):
        pass  # what precedes it: `100 Continue`, for example
    return event


def _next_event(connection: h11.Connection, sock: socket.socket) -> Any:
    """The next event of the answer. Raises OSError, h11.RemoteProtocolError."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(sock.recv(CHUNK_BYTES))
    return event


def _pieces(connection: h11.Connection, sock: socket.socket) -> Iterator[bytes]:
    try:
        while isinstance(event := _next_event(connection, sock), h11.Data):
            yield bytes(event.data)
    except (OSError, h11.RemoteProtocolError) as error:
        message = f"the connection to the model broke off: {type(error).__name__}"
        raise ConnectionFailed(message) from error


def _read_refusal(
    connection: h11.Connection, sock: socket.socket, response: h11.Response
) -> Refusal:
    body = b""
    with contextlib.suppress(ConnectionFailed):
        for piece in _pieces(connection, sock):
            body += piece
            if len(body) > REFUSAL_MAX_BYTES:
                break
    try:
        error = json.loads(body)["error"]
    except (ValueError, RecursionError, TypeError, KeyError):
        error = None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    return Refusal(response.status_code, error if isinstance(error, dict) else {}, headers)
