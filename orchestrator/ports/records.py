"""Ports to the simpler tables: changes, versions, logs, keys, audit, leases, usage, generations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from orchestrator.domain.ids import KeyId, SessionId, Sha256, UserId
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.llm.usage import Call, GroupBy, Reservation, UsageSum
from orchestrator.domain.people.access import ApiKey
from orchestrator.domain.sessions.bundles import BundleRecord, StorageLimits, Stored
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.generations import Generation
from orchestrator.domain.sessions.session import Session

LOG_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line of an app's or agent's output."""

    at: datetime
    text: str


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """Who did what, for operators to read later."""

    at: datetime
    actor: str  # user id, key id, "operator", "agent"
    action: str  # e.g. "report_refused", "session_killed"
    subject: str  # the id of the thing it was done to
    detail: str = ""
    number: int = 0  # grows with each entry; the store sets it


class Changes(Protocol):
    """The changes that users request."""

    def add(
        self,
        change: Change,
        session: Session,
        idempotency_key: str | None,
        *,
        max_per_minute: int | None = None,
    ) -> Session:
        """Insert the change, and save `session`, whose turns count it, in the same transaction.

        Deletes what the session then has more than changes.KEPT_MAX: the oldest, without those
        whose version is kept. Raises errors.StaleWrite, errors.NotFound, and errors.LimitReached
        (too_many_changes; detail: limit) if `max_per_minute` changes of the user's apps were added
        in the minute before `created_at`. Concurrent calls can't exceed it.
        """

    def find(self, session_id: SessionId, idempotency_key: str) -> Change | None:
        """The change that was requested with this key."""

    def get(self, session_id: SessionId, number: int) -> Change:
        """Raises errors.NotFound."""

    def list(
        self, session_id: SessionId, *, before: int | None = None, limit: int | None = None
    ) -> Sequence[Change]:
        """Oldest first. The latest `limit` of those whose number is below `before`, if given."""

    def conclude(
        self, change: Change, session: Session, version: BundleRecord | None = None
    ) -> Session:
        """Write how a change ended, with the summary of its `version`, and save `session`, all in
        the same transaction.

        Raises errors.StaleWrite.
        """


class BundleRecords(Protocol):
    """The versions of each session. Their bytes are in Bundles."""

    def keep(
        self, record: BundleRecord, session: Session, limits: StorageLimits | None = None
    ) -> Session:
        """Write the record, and save `session`, which it was decided for, in the same transaction.

        Of a record that exists already, healthy, provider and summary are written. With `limits`
        a new record has to fit into them, and of the drafts of its session only the latest stay.
        Raises errors.StaleWrite, errors.NotFound, errors.TooLarge (storage_quota), and
        errors.Conflict (bundle_exists) if the version exists with another digest.
        """

    def list(self, session_id: SessionId) -> Sequence[BundleRecord]:
        """Oldest first."""

    def stored(self, session_id: SessionId, user_id: UserId) -> Stored:
        """What a session, its user and all users together have stored."""

    def retire(self, session: Session, delete_after: datetime) -> Session:
        """Save `session`, which has ended, and set `delete_after` of those of its bundles that have
        none yet, in the same transaction. Raises errors.StaleWrite.
        """

    def prune(self, now: datetime) -> int:
        """Delete records past their `delete_after`, at most a batch. Returns how many."""

    def unnamed(self, digests: Collection[Sha256]) -> Collection[Sha256]:
        """Those of these digests that no record and no live session names."""

    def digests(self, after: str, limit: int) -> Sequence[Sha256]:
        """The digests that records name, each once and in order, that come after `after`."""


class Logs(Protocol):
    """The last lines of each session's app: at most SPAWN_LOG_LINES, and LOG_MAX_BYTES of UTF-8.
    A line that is longer by itself isn't kept."""

    def append(self, session_id: SessionId, lines: Sequence[str], now: datetime) -> None: ...

    def tail(self, session_id: SessionId, limit: int) -> Sequence[LogLine]:
        """Oldest first."""


class Keys(Protocol):
    """API keys, by hash."""

    def add(self, key: ApiKey) -> None:
        """Raises errors.Conflict (key_exists) if a key that isn't revoked has that name."""

    def by_hash(self, key_hash: str) -> ApiKey | None:
        """None if it is unknown or revoked."""

    def list(self) -> Sequence[ApiKey]: ...

    def revoke(self, key_id: KeyId, now: datetime) -> None:
        """Raises errors.NotFound."""


class Audit(Protocol):
    """The audit log: append-only."""

    def add(self, entry: AuditEntry) -> None: ...

    def list(self, *, before: int | None = None, limit: int = 100) -> Sequence[AuditEntry]:
        """Newest first. Only entries whose number is below `before`, if it is given."""

    def prune(self, before: datetime) -> int:
        """Delete entries older than `before`, at most a batch. Returns how many."""


RELEASED = datetime(1970, 1, 1, tzinfo=UTC)  # `until` of a lease that its holder has ended


@dataclass(frozen=True, kw_only=True)
class LeaseRecord:
    """A lease as it was last written."""

    holder: str
    until: datetime
    term: int  # counts the holders of this lease

    @property
    def is_released(self) -> bool:
        return self.until <= RELEASED


class Leases(Protocol):
    """Named leases. Each has at most one holder at a time."""

    def hold(self, name: str, holder: str, until: datetime, now: datetime) -> int | None:
        """Take or renew a lease. Returns the number of the holder's term, which is greater than
        that of every earlier holder. None: another holder's has not expired."""

    def release(self, name: str, holder: str) -> None:
        """End the lease now. The record stays, because its number must never decrease."""

    def holder(self, name: str, now: datetime) -> str | None:
        """The holder; None if there is none or the lease has expired."""

    def last(self, name: str) -> LeaseRecord | None:
        """The record, even of a lease that has expired; None if nobody ever held it."""


class Usage(Protocol):
    """Calls to the model: the reservation before each call, and its cost afterwards."""

    def reserve(self, reservation: Reservation, limits: Budgets, now: datetime) -> None:
        """Add the call's worst case to the accounts of its session, its user's day and the day.

        All of it is one transaction. First it records expired reservations as calls that were
        LOST, and gives back what they reserved. Raises errors.BudgetExhausted if the call doesn't
        fit into an account, and errors.LimitReached (budget_reserved) if it may fit once other
        calls have ended; then nothing is added.
        """

    def renew(self, holder: str, until: datetime) -> None:
        """Extend all reservations of this holder to `until`."""

    def settle(self, call: Call) -> None:
        """Record a call that has ended, and correct its accounts from the worst case to its cost.

        Repeating it changes nothing.
        """

    def spent(self, keys: Iterable[str]) -> Mapping[str, Spend]:
        """What is spent or reserved, by account key. Accounts that were never used are left out."""

    def session_sums(self, session_id: SessionId) -> Sequence[UsageSum]:
        """Sums over a session's ended calls, by provider, the dearest first."""

    def providers(self, session_id: SessionId, change: int) -> Sequence[str]:
        """The providers that served the calls of one change, in the order in which calls ended.

        Change 0 is the first version.
        """

    def output_tokens(self, *, changes: bool, since: datetime, limit: int) -> Sequence[int]:
        """The output tokens of each first version, or of each change, the latest first."""

    def sums(
        self, by: GroupBy, *, since: datetime, user_id: UserId | None = None, limit: int = 100
    ) -> Sequence[UsageSum]:
        """Sums over calls that ended at or after `since`.

        Days come newest first, everything else dearest first.
        """

    def prune(self, before: datetime) -> int:
        """Delete calls that ended before `before`, and accounts unused since then.

        Returns how many calls were deleted.
        """


class Generations(Protocol):
    """Healthy bundles by the key of their prompt. They are reused for generations.FRESH_FOR."""

    def put(self, generation: Generation) -> None:
        """Store it in place of an older one with the same key."""

    def find(self, key: str, now: datetime) -> Generation | None: ...

    def prune(self, now: datetime) -> int:
        """Delete those that are too old to be reused. Returns how many."""
