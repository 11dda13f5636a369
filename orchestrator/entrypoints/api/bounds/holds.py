"""Counts what each principal holds at a time: polls, requests, transfers. Both apps bound them.

Several processes of the API divide a limit. The proxy asks the next one if one refuses, so that all
of the limit can be used, whichever process gets a request.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Generator
from typing import Protocol

from orchestrator.domain import errors


class RefusalCounter(Protocol):
    """A metric, such as a Counter of Prometheus with its labels."""

    def inc(self) -> None: ...


class HeldGauge(Protocol):
    """A metric, such as a Gauge of Prometheus."""

    def inc(self) -> None: ...

    def dec(self) -> None: ...


class Holds:
    """Holds of one kind. Use it from one event loop only."""

    def __init__(
        self,
        unit: str,
        *,
        code: str,
        refusals: RefusalCounter,
        held: HeldGauge | None = None,
        processes: int = 1,
    ) -> None:
        """`unit` names the kind in the error, `refusals` counts what is refused, `held` shows what
        all hold. `processes` share each limit."""
        self._unit = unit
        self._code = code
        self._refusals = refusals
        self._gauge = held
        self._processes = processes
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, principal: str, limit: int) -> Generator[None]:
        """Hold one. Raises errors.LimitReached if the principal already holds our share of
        `limit`."""
        if self._held[principal] >= math.ceil(limit / self._processes):
            self._refusals.inc()
            raise errors.LimitReached(
                f"you may have {limit} {self._unit} at a time; end one, or try again later",
                code=self._code,
                limit=limit,
            )
        self._held[principal] += 1
        if self._gauge is not None:
            self._gauge.inc()
        try:
            yield
        finally:
            if self._gauge is not None:
                self._gauge.dec()
            self._held[principal] -= 1
            if not self._held[principal]:
                del self._held[principal]
