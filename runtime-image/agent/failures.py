"""The exception that ends an assignment. Raised everywhere, caught by `jobs/runner.py`."""

from __future__ import annotations

import errno

from orchestrator.contract.wire import TEMPORARY, Failure, FailureCode

NO_ROOM = (
    "There is no room for a second copy of the app's data, which a change needs: "
    "delete some of the data, then try again."
)


class AssignmentFailed(Exception):
    """An assignment, or the app that serves, can't go on. The runner reports it to home."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def failure(self) -> Failure:
        """What a report says of it."""
        permanent = self.code not in TEMPORARY
        return Failure(code=self.code, message=self.message, permanent=permanent)


def is_full(error: Exception) -> bool:
    """Whether a write failed because the sandbox has no room left, or an app has too much."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def no_room() -> AssignmentFailed:
    """For a change that doesn't fit beside the app that is shown."""
    return AssignmentFailed(FailureCode.NO_ROOM, NO_ROOM)
