"""Connections to Redis, and the names of everything that an installation keeps there.

The work queue and the workers connect through this module.
"""

from __future__ import annotations

import socket
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

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
    not: it would only hold up its caller for longer.
    """
    if not url.startswith("unix:"):
        options.update(socket_keepalive=True, socket_keepalive_options=_KEEPALIVE)
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, (redis.ConnectionError,))
    return redis.Redis.from_url(
        url, retry=retry, **{"socket_connect_timeout": TIMEOUT_S, **options}
    )


def prefix_of(installation: str) -> str:
    """What the name of every key and queue of an installation begins with.

    Two installations may share one Redis. `installation` is the file `instance` of its state
    folder.
    """
    return f"spawn:{installation}:"
