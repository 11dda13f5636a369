"""The exception that ends an assignment. Raised everywhere, caught by `jobs/runner.py`."""

from __future__ import annotations

from orchestrator.contract.wire import TEMPORARY, Failure, FailureCode


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
