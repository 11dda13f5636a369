"""Connections to Redis, and the names of everything that an installation keeps there.

The work queue and the workers connect through this module.
"""

from __future__ import annotations

import socket
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.connection import Connection, UnixDomainSocketConnection
from redis.retry import Retry

from orchestrator.adapters.deadline_socket import DeadlineSocket

TIMEOUT_S = 1.0  # for one command; Redis answers within a millisecond or not at all
# A firewall or NAT may forget an idle connection without telling either side. With these a dead one
# is noticed within 25 s, an unanswered command sooner.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 10_000,  # milliseconds
}


def connect(url: str, **options: Any) -> redis.Redis:
    """A client with a pool of connections. It connects at its first use.

    A refused connection is tried once more: Redis may be restarting. A command that times out is
    not: it would only hold up its caller for longer. `socket_timeout` is the time for a whole
    answer, however it comes; over TLS, for each part of it.
    """
    if not url.startswith("unix:"):
        options.update(socket_keepalive=True, socket_keepalive_options=_KEEPALIVE)
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, (redis.ConnectionError,))
    if not url.startswith("rediss:"):
        options["connection_class"] = _UnixLink if url.startswith("unix:") else _TcpLink
    return redis.Redis.from_url(
        url, retry=retry, **{"socket_connect_timeout": TIMEOUT_S, **options}
    )


class _WholeAnswers:
    """Bounds the time in which the whole answer to a command comes, not only each read."""

    _link: DeadlineSocket | None = None
    socket_timeout: float | None  # of the connection

    def _connect(self) -> DeadlineSocket:
        plain: socket.socket = super()._connect()  # type: ignore[misc]  # of the connection
        self._link = DeadlineSocket.adopt(plain)
        return self._link

    def read_response(self, *args: Any, **options: Any) -> Any:
        link = self._link
        if link is not None and "timeout" not in options:
            link.begin_call(self.socket_timeout)
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]  # see above
        finally:
            if link is not None:
                link.begin_call(None)


class _TcpLink(_WholeAnswers, Connection):
    """Over TCP."""


class _UnixLink(_WholeAnswers, UnixDomainSocketConnection):
    """Over a UNIX socket."""


def prefix_of(installation: str) -> str:
    """What the name of every key and queue of an installation begins with.

    Two installations may share one Redis. `installation` is the file `instance` of its state
    folder.
    """
    return f"spawn:{installation}:"
