"""How many files and connections a process may have open. The supervisor raises it for all.

A shell or a service manager gives 1,024. Each sandbox takes a socket and the connection of its
agent's poll, and each host several.
"""

from __future__ import annotations

import resource

WANTED = 65536
ENOUGH = 8192  # for some 3,500 sandboxes, or 500 hosts


def raise_limit() -> None:
    """Raise the soft limit of this process, and so of its children, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _number(soft) < reachable():
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable(), hard))


def reachable() -> int:
    """The limit that `raise_limit` can reach here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_number(soft), min(_number(hard), WANTED))


def _number(limit: int) -> int:
    return WANTED if limit == resource.RLIM_INFINITY else limit
