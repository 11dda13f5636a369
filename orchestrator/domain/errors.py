"""The tree of errors. Adapters translate foreign errors into it; one table maps it to HTTP.

Every error has a stable `code` for programs, and a message that tells people what to do.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

_QUOTED_MAX = 80  # characters


class SpawnError(Exception):
    """The base of every error that we raise on purpose.

    `code` is for programs and never renamed. `detail` holds more public fields (limits, names).
    """

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, **detail: object) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.detail = detail


class Permanent(SpawnError):
    """A retry can't help: somebody has to change the request or the installation."""


class Temporary(SpawnError):
    """A later retry may work. `retry_after_s` suggests when, in seconds."""

    def __init__(
        self, message: str, *, code: str | None = None, retry_after_s: float = 1.0, **detail: object
    ) -> None:
        super().__init__(message, code=code, **detail)
        self.retry_after_s = retry_after_s


class InvalidInput(Permanent):
    """A field of a request has a bad value. `detail['field']` names it."""

    code = "invalid_input"


class WouldBlock(SpawnError):
    """A read that was to wait for nobody would have to. Do it in a thread instead."""

    code = "would_block"


class NotFound(Permanent):
    """The thing doesn't exist, or it is not the caller's."""

    code = "not_found"


class Unauthorized(Permanent):
    """The request has no credential, or an unknown one."""

    code = "unauthorized"


class AmbiguousCookie(Permanent):
    """The visitor's cookie comes twice, and so could be somebody else's."""

    code = "cookie_ambiguous"


class Forbidden(Permanent):
    """The caller is known, but may not do this."""

    code = "forbidden"


class Conflict(Permanent):
    """The thing is in a state that doesn't allow this."""

    code = "conflict"


class StaleWrite(Temporary):
    """Somebody else has written the row since we read it. Read it again."""

    code = "stale_write"


class TermOver(StaleWrite):
    """Our lease has run out: another daemon may lead, and what we decided is stale."""

    code = "term_over"


class IllegalTransition(Permanent):
    """A state machine doesn't have this transition. That is a bug; the message has its history."""

    code = "illegal_move"


class TooLarge(Permanent):
    """More bytes than allowed. `detail['limit_bytes']` is the limit."""

    code = "too_large"


class LimitReached(Temporary):
    """A quota or a rate is used up. `detail['limit']` is the limit."""

    code = "too_many_sessions"


class BudgetExhausted(Permanent):
    """A call could cost more than is left of a budget.

    `detail` says whose budget, what is left and when it renews. Permanent, because no retry of the
    same call helps before that.
    """

    code = "budget_exhausted"


class NoCredit(Permanent):
    """A provider's account, which the operator pays, is empty or at its limit."""

    code = "provider_no_credit"


class NoCapacity(Temporary):
    """There is no warm sandbox and no free slot. The session stays QUEUED."""

    code = "no_capacity"


class StorageUnavailable(Temporary):
    """A file or folder of ours can't be read or written. The message names it and the reason."""

    code = "storage_unavailable"


class StorageFull(StorageUnavailable):
    """The disk of the control plane is full, or nearly: then `code` is `storage_low`."""

    code = "storage_full"


class EngineUnavailable(Temporary):
    """The host's Docker engine does not answer."""

    code = "docker_unavailable"


class LinkDown(EngineUnavailable):
    """There is no SSH connection to a host.

    `code` says why: `unreachable`, `login_refused` or `host_key_changed`.
    """

    code = "unreachable"


class HostUnfit(Temporary):
    """A host answers, but can't take sandboxes yet.

    `code` says why: `image_missing`, `fences_missing` or `folder_unseen`, for example.
    """

    code = "host_unfit"


class SandboxRefused(Temporary):
    """Docker refused to create or start this sandbox, or to change its CPU limit.

    `code` says why: `image_missing`, `network_missing`, `port_taken`, `disk_full`, `create_failed`
    or `cpu_limit_refused`.
    """

    code = "create_failed"


class ProxyRejected(Permanent):
    """The proxy refused a new configuration. The last good one stays in force."""

    code = "proxy_rejected"


class ProxyUnavailable(Temporary):
    """The proxy isn't running, or doesn't confirm a table."""

    code = "proxy_unavailable"


class QueueUnavailable(Temporary):
    """Redis does not answer. Nothing is lost: the nudge loop repeats the nudge."""

    code = "queue_unavailable"


def quoted(text: str) -> str:
    """A text that somebody sent, as an error may repeat it: short, and in characters that can be
    printed."""
    shown = text if len(text) <= _QUOTED_MAX else text[:_QUOTED_MAX] + "..."
    return repr(shown)


@contextlib.contextmanager
def storage(action: str) -> Iterator[None]:
    """Turn the system's errors about files in this block into StorageUnavailable or StorageFull.

    `action` completes the message "can't ...". Every adapter of files uses this at its border.
    """
    try:
        yield
    except OSError as error:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        kind = StorageFull if is_full else StorageUnavailable
        place = f" ({error.filename})" if error.filename else ""
        raise kind(f"can't {action}: {error.strerror or error}{place}", retry_after_s=10) from error
