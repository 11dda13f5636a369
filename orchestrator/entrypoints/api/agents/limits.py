"""What one sandbox may ask of the agents' process at a time, a user's together, and all. door.py
and app.py apply it.

A sandbox is known by its token.
"""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, UserId
from orchestrator.entrypoints.api.bounds.holds import Holds
from orchestrator.entrypoints.api.bounds.layered_rates import Delay, LayeredRates, Layers
from orchestrator.entrypoints.api.bounds.turns import Turns
from orchestrator.entrypoints.api.bounds.work_shares import SHARE, WorkShares, layers_of
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.services.rates import Rate

_CODE = "too_many_requests"


_OWNERS_MAX = 10_000  # sandboxes whose users are remembered
_MIB = 1024**2

REQUESTS = Layers(
    own=Rate(per_s=50.0, burst=100.0),
    floor=Rate(per_s=2.0, burst=30.0),  # an agent polls every 30 s, and reports what happens
    user=Rate(per_s=50.0, burst=200.0),
    total=Rate(per_s=400.0, burst=1200.0),
)
# An archive takes up to a third of a second of our processor time.
UPLOADS = Layers(
    own=Rate(per_s=0.2, burst=20.0),
    floor=Rate(per_s=0.02, burst=3.0),
    user=Rate(per_s=0.4, burst=30.0),
    total=Rate(per_s=1.0, burst=60.0),
)
# Of reports. An agent sends 32 KiB of log a second at most, as JSON.
REPORT_BYTES = Layers(
    own=Rate(per_s=128 * 1024, burst=4 * _MIB),
    floor=Rate(per_s=16 * 1024, burst=_MIB),
    user=Rate(per_s=256 * 1024, burst=8 * _MIB),
    total=Rate(per_s=2 * _MIB, burst=32 * _MIB),
)
WORK = layers_of(SHARE)


@dataclass(frozen=True, kw_only=True)
class SenderLimits:
    """The bounds of one sandbox, of a user's, and of all."""

    polls: int = 2  # the one that its agent holds, and one that it has given up
    requests: int = 16  # at a time, polls included
    transfers: int = 1  # of bundles, in either direction
    trials: int = 1  # of versions that are opened at their public address
    reports: int = 64  # of one user that are read or wait for their turn
    body_bytes: int = 40 * 1024**2  # of its requests that are held in memory; one has 32 MiB
    user_body_bytes: int = 128 * 1024**2  # of all of a user's sandboxes
    all_body_bytes: int = 256 * 1024**2  # of all sandboxes together
    small_body_bytes: int = 1024**2  # so much each may hold, however much the others do
    request_rate: Layers = REQUESTS
    upload_rate: Layers = UPLOADS
    report_bytes: Layers = REPORT_BYTES
    work: Layers = WORK  # of processor time, to read its reports


class Senders:
    """Counts what each sandbox holds, and how fast it asks. Use it from one event loop only."""

    def __init__(
        self, metrics: GatewayMetrics, now_s: Callable[[], float], limits: SenderLimits
    ) -> None:
        self._metrics = metrics
        self._now_s = now_s
        self._limits = limits
        self._rates = LayeredRates(limits.request_rate)
        self._uploads = LayeredRates(limits.upload_rate)
        self._report_bytes = LayeredRates(limits.report_bytes)
        self._owners: OrderedDict[SandboxId, UserId] = OrderedDict()
        self._bodies: Counter[str] = Counter()  # bytes in memory, by sandbox
        self._user_bodies: Counter[str] = Counter()  # the same, by user
        self._requests = self._holds("requests")
        self._polls = self._holds("polls")
        self._transfers = self._holds("transfers")
        self._trials = self._holds("trials")
        self._reports = Turns(self._holds("reports"))
        self.work = WorkShares(metrics.agent_refusals.labels("work"), limits.work, now_s)

    def set_owner(self, sandbox_id: SandboxId, user_id: UserId) -> None:
        """Remember whose sandbox it is: a token of a request doesn't tell. From then on its
        requests count for the user too."""
        self._owners[sandbox_id] = user_id
        self._owners.move_to_end(sandbox_id)
        if len(self._owners) > _OWNERS_MAX:
            self._owners.popitem(last=False)

    def request(self, sandbox_id: SandboxId) -> contextlib.AbstractContextManager[None]:
        """Hold one request. Raises errors.LimitReached (too_many_requests), also if the sandbox
        asks too fast, or its user's sandboxes together, or all."""
        limit = f"you may make {self._limits.request_rate.own.per_s:g} requests a second"
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
        (too_many_requests), also if they are sent too fast."""
        limit = f"you may send a bundle every {1 / self._limits.upload_rate.own.per_s:g} s"
        self._take_token("upload_rate", self._uploads, sandbox_id, limit)
        return self.transfer(sandbox_id)

    def trial(self, sandbox_id: SandboxId) -> contextlib.AbstractContextManager[None]:
        """Hold the trial of one version, its turn included. Raises errors.LimitReached
        (too_many_requests)."""
        return self._trials.hold(sandbox_id, self._limits.trials)

    def report(self, sandbox_id: SandboxId) -> Callable[[int], None]:
        """Begin to read a report. Returns what counts the bytes of each part. Raises
        errors.LimitReached (too_many_requests) if sandbox, user or all have sent too many."""
        rates, user = self._report_bytes, self._owner_of(sandbox_id)
        limit = f"you may send {self._limits.report_bytes.own.per_s / 1024:g} KiB a second"
        self._check("report_bytes", rates.delay(sandbox_id, user, self._now_s()), limit)
        return lambda size: rates.charge(sandbox_id, user, self._now_s(), size)

    def report_turn(self, user_id: UserId) -> contextlib.AbstractAsyncContextManager[None]:
        """Wait until a report of this user may be read and recorded. Raises errors.LimitReached
        (too_many_requests) if too many wait."""
        return self._reports.turn(user_id, self._limits.reports)

    @contextlib.contextmanager
    def body(self, sandbox_id: SandboxId) -> Generator[Callable[[int], None]]:
        """Hold a body in memory, of a request or of an answer. Yields what counts each part of it,
        and raises errors.LimitReached (too_many_requests) if the sandbox, its user or all together
        hold too much."""
        size = 0
        user = self._owner_of(sandbox_id)

        def count(part_bytes: int) -> None:
            nonlocal size
            size += part_bytes
            self._bodies[sandbox_id] += part_bytes
            self._user_bodies[user] += part_bytes
            if self._bodies[sandbox_id] > self._limits.body_bytes:
                raise self._refusal("bytes", "you send too many bytes at a time")
            is_small = self._bodies[sandbox_id] <= self._limits.small_body_bytes
            if not is_small and self._user_bodies[user] > self._limits.user_body_bytes:
                raise self._refusal("user_bytes", "your apps send too many bytes at a time")
            if not is_small and self._bodies.total() > self._limits.all_body_bytes:
                raise self._refusal("all_bytes", "too many bytes are on their way at the moment")

        try:
            yield count
        finally:
            for bodies, holder in ((self._bodies, sandbox_id), (self._user_bodies, user)):
                bodies[holder] -= size
                if not bodies[holder]:
                    del bodies[holder]

    def _take_token(
        self, reason: str, rates: LayeredRates, sandbox_id: SandboxId, limit: str
    ) -> None:
        user, now_s = self._owner_of(sandbox_id), self._now_s()
        self._check(reason, rates.delay(sandbox_id, user, now_s, 1.0), limit)
        rates.charge(sandbox_id, user, now_s, 1.0)

    def _check(self, reason: str, delay: Delay | None, limit: str) -> None:
        if delay is None:
            return
        if delay.is_own:
            raise self._refusal(reason, limit, retry_after_s=delay.wait_s)
        message = "your apps together, or all apps, ask for too much at the moment"
        raise self._refusal(f"shared_{reason}", message, retry_after_s=delay.wait_s)

    def _owner_of(self, sandbox_id: SandboxId) -> str:
        return self._owners.get(sandbox_id, sandbox_id)  # unknown: it counts for itself alone

    def _holds(self, kind: str) -> Holds:
        return Holds(kind, code=_CODE, refusals=self._metrics.agent_refusals.labels(kind))

    def _refusal(
        self, reason: str, message: str, *, retry_after_s: float = 1.0
    ) -> errors.LimitReached:
        self._metrics.agent_refusals.labels(reason).inc()
        return errors.LimitReached(message, code=_CODE, retry_after_s=retry_after_s)
