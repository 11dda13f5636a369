"""Pings: the supervisor asks a server whether it still answers, and never waits for it.

A ping is a question as data. An OpenPing carries it out in steps, one at each tick.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from dataclasses import dataclass
from pathlib import Path

PAUSE_S = 4.0  # after an answer
_PATIENCE_S = 5.0  # then the question is put again, over a new connection
_ANSWER_MAX_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Ping:
    """What to ask, where, and how each answer begins."""

    address: tuple[str, int] | Path
    question: bytes
    answer: bytes


def http(address: tuple[str, int] | Path, path: str) -> Ping:
    """Any answer over HTTP, whatever its status."""
    question = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    return Ping(address=address, question=question, answer=b"HTTP/1.")


def redis(path: Path) -> Ping:
    """Any answer over Redis's protocol: a server that is still loading answers with an error."""
    return Ping(address=path, question=b"PING\r\n", answer=b"")


class OpenPing:
    """Puts the question of one Ping again and again."""

    def __init__(self, ping: Ping, pause_s: float = PAUSE_S) -> None:
        """`pause_s`: after an answer."""
        self._ping = ping
        self._pause_s = pause_s
        self._socket: socket.socket | None = None
        self._is_asked = False
        self._opened_at = 0.0
        self._pause_until = float("-inf")

    def advance(self, now: float) -> bool:
        """Do what can be done without waiting. Returns whether an answer has just come."""
        if now < self._pause_until:
            return False
        try:
            is_answered = self._step(now)
        except OSError:  # nobody listens there at the moment
            self.close()
            return False
        if is_answered:
            self._pause_until = now + self._pause_s
            self.close()
        return is_answered

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._is_asked = None, False

    def _step(self, now: float) -> bool:
        if self._socket is not None and now - self._opened_at > _PATIENCE_S:
            self.close()
        if self._socket is None:
            self._socket, self._opened_at = _connect(self._ping.address), now
        events = _events_of(self._socket)
        if not self._is_asked and events & select.POLLOUT:
            self._socket.sendall(self._ping.question)  # it is short: a new socket has room for it
            self._is_asked = True
        if self._is_asked and events & select.POLLIN:
            start = self._socket.recv(_ANSWER_MAX_BYTES)
            if start.startswith(self._ping.answer) and start:
                return True
            self.close()  # it has closed the connection, or another server has this address
        return False


def _connect(address: tuple[str, int] | Path) -> socket.socket:
    """A socket that connects in the background. Raises OSError if it can't."""
    family = socket.AF_UNIX if isinstance(address, Path) else _family_of(address[0])
    new = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    code = new.connect_ex(str(address) if isinstance(address, Path) else address)
    if code not in {0, errno.EINPROGRESS}:
        new.close()
        raise OSError(code, "the server does not accept connections")
    return new


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _events_of(connection: socket.socket) -> int:
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLOUT)
    with contextlib.suppress(InterruptedError):
        for _, events in poll.poll(0):
            return events
    return 0
