"""A socket with a deadline for a whole call. The connections to Docker and Redis use it.

A time-out bounds one read or write. Somebody who sends a byte a second never exceeds it.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from typing import Any, ParamSpec, Self, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class DeadlineSocket(socket.socket):
    """Reads and writes raise TimeoutError when the deadline has passed, or the time-out of one."""

    _ends_at = math.inf

    @classmethod
    def adopt(cls, plain: socket.socket) -> Self:
        """Take over a connection; `plain` is of no use afterwards."""
        timeout_s = plain.gettimeout()
        adopted = cls(plain.family, plain.type, plain.proto, plain.detach())
        adopted.settimeout(timeout_s)
        return adopted

    def begin_call(self, within_s: float | None) -> None:
        """A call begins that has so many seconds; None: as many as it needs."""
        self._ends_at = math.inf if within_s is None else time.monotonic() + within_s

    def recv(self, *args: Any) -> bytes:
        return self._before_the_deadline(super().recv, *args)

    def recv_into(self, *args: Any) -> int:
        return self._before_the_deadline(super().recv_into, *args)

    def send(self, *args: Any) -> int:
        return self._before_the_deadline(super().send, *args)

    def sendall(self, *args: Any) -> None:
        self._before_the_deadline(super().sendall, *args)

    def _before_the_deadline(
        self, call: Callable[_P, _T], *args: _P.args, **options: _P.kwargs
    ) -> _T:
        timeout_s, left_s = self.gettimeout(), self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the call took too long as a whole")
        if left_s == math.inf or (timeout_s is not None and timeout_s <= left_s):
            return call(*args, **options)
        self.settimeout(left_s)
        try:
            return call(*args, **options)
        finally:
            self.settimeout(timeout_s)
