"""Exit codes of spawnctl. They are defined here only, because scripts rely on them."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Exit(enum.IntEnum):
    """What `$?` means to the caller."""

    OK = 0  # done
    FAILED = 1  # the session failed, or the command did for a reason without a code of its own
    USAGE = 2  # wrong arguments, settings or input
    UNAUTHORIZED = 3  # no key, an unknown key, or a key that does not allow this
    NOT_FOUND = 4  # there is no such session, key, host or template
    UNREACHABLE = 5  # the control plane, or an engine, does not answer
    CONFLICT = 6  # a limit is reached, or the current state does not allow this
    PROBLEMS = 7  # doctor found problems
    INTERRUPTED = 130  # Ctrl-C, as shells report it


MEANINGS: Mapping[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "usage",
    Exit.UNAUTHORIZED: "unauthorized",
    Exit.NOT_FOUND: "not found",
    Exit.UNREACHABLE: "unreachable",
    Exit.CONFLICT: "conflict or limit",
    Exit.PROBLEMS: "doctor found problems",
}

_BY_STATUS: Mapping[int, Exit] = {
    401: Exit.UNAUTHORIZED,
    403: Exit.UNAUTHORIZED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    429: Exit.CONFLICT,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}


def for_status(status: int) -> Exit:
    """The exit code for an HTTP status that means an error."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Exit.USAGE if 400 <= status < 500 else Exit.FAILED
