"""The one tree of errors. Adapters translate foreign errors into it; one table maps it to HTTP.

Every error carries a stable `code` for programs and a message that says what to do for people.
"""

from __future__ import annotations


class SpawnError(Exception):
    """Base of everything we raise on purpose.

    `code` is stable and machine-readable; `detail` holds further public fields (limits, names).
    """

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, **detail: object) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.detail = detail


class Permanent(SpawnError):
    """Trying again changes nothing; somebody has to change the request or the set-up."""


class Temporary(SpawnError):
    """Trying again later may work. `retry_after_s` is a hint in seconds."""

    def __init__(
        self, message: str, *, code: str | None = None, retry_after_s: float = 1.0, **detail: object
    ) -> None:
        super().__init__(message, code=code, **detail)
        self.retry_after_s = retry_after_s


class InvalidInput(Permanent):
    """A field of a request is out of its range; `detail['field']` names it."""

    code = "invalid_input"


class NotFound(Permanent):
    """There is no such thing, or it is not the caller's."""

    code = "not_found"


class Unauthorized(Permanent):
    """No credential, or one that we don't know."""

    code = "unauthorized"


class Forbidden(Permanent):
    """A known caller asked for something that isn't theirs."""

    code = "forbidden"


class Conflict(Permanent):
    """The thing is in a state in which this can't be done."""

    code = "conflict"


class StaleWrite(Temporary):
    """Somebody else changed the row since it was read. Observe again."""

    code = "stale_write"


class IllegalMove(Permanent):
    """A state machine was asked for a transition it doesn't have: a bug, told with its history."""

    code = "illegal_move"


class TooLarge(Permanent):
    """More bytes than we take; `detail['limit_bytes']`."""

    code = "too_large"


class LimitReached(Temporary):
    """A quota or rate is used up; `detail['limit']`."""

    code = "too_many_sessions"


class BudgetExhausted(Permanent):
    """A call would cost more than is left of a budget; `detail` says whose, what is left, and when
    it renews. Permanent: no retry of the same call helps before then."""

    code = "budget_exhausted"


class NoCapacity(Temporary):
    """No warm sandbox and no free slot: the session stays queued."""

    code = "no_capacity"


class EngineUnavailable(Temporary):
    """The host's Docker engine does not answer."""

    code = "docker_unavailable"


class LinkDown(EngineUnavailable):
    """No SSH connection to a host. `code` says why: `unreachable`, `login_refused`,
    `host_key_changed`."""

    code = "unreachable"


class HostUnfit(Temporary):
    """A host answers and can't take sandboxes yet. `code` says why: `image_missing`,
    `fences_missing`."""

    code = "host_unfit"


class SandboxRefused(Temporary):
    """Docker would not create or start this sandbox. `code` says why: `image_missing`,
    `port_taken`, `disk_full`, `create_failed`."""

    code = "create_failed"


class ProxyRejected(Permanent):
    """The proxy refused a rendered configuration; the last good one stays in force."""

    code = "proxy_rejected"


class ProxyUnavailable(Temporary):
    """The proxy isn't running or doesn't confirm a reload."""

    code = "proxy_unavailable"


class QueueUnavailable(Temporary):
    """Redis does not answer. Nothing is lost: the reconcile loop nudges again."""

    code = "queue_unavailable"
