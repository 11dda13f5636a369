"""Which requests are logged. The settings, the API and the proxy's configuration share it."""

from __future__ import annotations

import enum

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class LoggedRequests(enum.StrEnum):
    """Each value includes those before it."""

    OFF = "off"  # none
    ERRORS = "errors"  # those that were refused or failed: status 400 and above
    WRITES = "writes"  # and those that change something, such as the start of an app
    ALL = "all"

    def includes(self, method: str, status: int) -> bool:
        """Whether a request with this method and outcome is logged."""
        match self:
            case LoggedRequests.OFF:
                return False
            case LoggedRequests.ALL:
                return True
            case LoggedRequests.ERRORS:
                return status >= 400
            case LoggedRequests.WRITES:
                return status >= 400 or method in WRITES
