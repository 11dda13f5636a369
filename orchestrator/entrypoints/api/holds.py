"""Counts what each principal holds at a time: polls, requests, transfers. Both apps bound them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator
from typing import Protocol

from orchestrator.domain import errors


class RefusalCounter(Protocol):
    """A metric, such as a Counter of Prometheus with its labels."""

    def inc(self) -> None: ...


class Holds:
    """Holds of one kind. Use it from one event loop only."""

    def __init__(self, unit: str, *, code: str, refusals: RefusalCounter) -> None:
        """`unit` names the kind in the error, `refusals` counts what is refused."""
        self._unit = unit
        self._code = code
        self._refusals = refusals
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, principal: str, limit: int) -> Generator[None]:
        """Hold one. Raises errors.LimitReached if the principal already holds `limit`."""
        if self._held[principal] >= limit:
            self._refusals.inc()
            raise errors.LimitReached(
                f"you may have {limit} {self._unit} at a time; end one, or try again later",
                code=self._code,
                limit=limit,
            )
        self._held[principal] += 1
        try:
            yield
        finally:
            self._held[principal] -= 1
            if not self._held[principal]:
                del self._held[principal]
