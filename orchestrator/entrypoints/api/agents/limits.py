"""What one sandbox may ask of the agents' process at a time. door.py and app.py apply it.

A sandbox is known by its token.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.entrypoints.api.bounds.holds import Holds
from orchestrator.entrypoints.api.bounds.work_shares import SHARE, WorkShares
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.services.rates import Rate, Rates

_CODE = "too_many_requests"


@dataclass(frozen=True, kw_only=True)
class SenderLimits:
    """The bounds of one sandbox, and one of all."""

    polls: int = 2  # the one that its agent holds, and one that it has given up
    requests: int = 16  # at a time, polls included
    transfers: int = 1  # of bundles, in either direction
    trials: int = 1  # of versions that are opened at their public address
    body_bytes: int = 40 * 1024**2  # of its requests that are held in memory; one has 32 MiB
    rate_per_s: float = 50.0
    burst: float = 100.0
    all_body_bytes: int = 256 * 1024**2  # of all sandboxes together
    small_body_bytes: int = 1024**2  # so much each may hold, however much the others do
    upload_per_s: float = 0.2  # an archive takes up to a third of a second of our processor time
    upload_burst: float = 20.0
    work: Rate = SHARE  # of processor time, to read its reports


class Senders:
    """Counts what each sandbox holds, and how fast it asks. Use it from one event loop only."""

    def __init__(
        self, metrics: GatewayMetrics, now_s: Callable[[], float], limits: SenderLimits
    ) -> None:
        self._metrics = metrics
        self._now_s = now_s
        self._limits = limits
        self._rates = Rates(Rate(per_s=limits.rate_per_s, burst=limits.burst))
        self._uploads = Rates(Rate(per_s=limits.upload_per_s, burst=limits.upload_burst))
        self._bodies: Counter[SandboxId] = Counter()  # bytes in memory
        self._requests = self._holds("requests")
        self._polls = self._holds("polls")
        self._transfers = self._holds("transfers")
        self._trials = self._holds("trials")
        self.work = WorkShares(metrics.agent_refusals.labels("work"), limits.work, now_s)

    def request(self, sandbox_id: SandboxId) -> contextlib.AbstractContextManager[None]:
        """Hold one request. Raises errors.LimitReached (too_many_requests), also if the sandbox
        asks too fast."""
        limit = f"you may make {self._limits.rate_per_s:g} requests a second"
        self._take_token("rate", self._rates, sandbox_id, limit)
        return self._requests.hold(sandbox_id, self._limits.requests)

    def poll(self, sandbox_id: SandboxId) -> contextlib.AbstractContextManager[None]:
        """Hold one poll of the inbox. Raises errors.LimitReached (too_many_requests)."""
        return self._polls.hold(sandbox_id, self._limits.polls)

    def transfer(self, sandbox_id: SandboxId) -> contextlib.AbstractContextManager[None]:
        """Hold the transfer of one bundle. Raises errors.LimitReached (too_many_requests)."""
        return self._transfers.hold(sandbox_id, self._limits.transfers)

    def upload(self, sandbox_id: SandboxId) -> contextlib.AbstractContextManager[None]:
        """The same for one that is sent to us, and read. Raises errors.LimitReached
        (too_many_requests), also if the sandbox sends them too fast."""
        limit = f"you may send a bundle every {1 / self._limits.upload_per_s:g} s"
        self._take_token("upload_rate", self._uploads, sandbox_id, limit)
        return self.transfer(sandbox_id)

    def trial(self, sandbox_id: SandboxId) -> contextlib.AbstractContextManager[None]:
        """Hold the trial of one version. Raises errors.LimitReached (too_many_requests)."""
        return self._trials.hold(sandbox_id, self._limits.trials)

    @contextlib.contextmanager
    def body(self, sandbox_id: SandboxId) -> Generator[Callable[[int], None]]:
        """Hold a body in memory, of a request or of an answer. Yields what counts each part of it,
        and raises errors.LimitReached (too_many_requests) if the sandbox, or all together, hold too
        much."""
        size = 0

        def count(part_bytes: int) -> None:
            nonlocal size
            size += part_bytes
            self._bodies[sandbox_id] += part_bytes
            if self._bodies[sandbox_id] > self._limits.body_bytes:
                raise self._refusal("bytes", "you send too many bytes at a time")
            is_small = self._bodies[sandbox_id] <= self._limits.small_body_bytes
            if not is_small and self._bodies.total() > self._limits.all_body_bytes:
                raise self._refusal("all_bytes", "too many bytes are on their way at the moment")

        try:
            yield count
        finally:
            self._bodies[sandbox_id] -= size
            if not self._bodies[sandbox_id]:
                del self._bodies[sandbox_id]

    def _take_token(self, reason: str, rates: Rates, sandbox_id: SandboxId, limit: str) -> None:
        wait_s = rates.take(sandbox_id, self._now_s())
        if wait_s:
            raise self._refusal(reason, limit, retry_after_s=wait_s)

    def _holds(self, kind: str) -> Holds:
        return Holds(kind, code=_CODE, refusals=self._metrics.agent_refusals.labels(kind))

    def _refusal(
        self, reason: str, message: str, *, retry_after_s: float = 1.0
    ) -> errors.LimitReached:
        self._metrics.agent_refusals.labels(reason).inc()
        return errors.LimitReached(message, code=_CODE, retry_after_s=retry_after_s)
