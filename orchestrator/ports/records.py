"""The database's lesser parts: versions, logs, keys, audit, leases, usage, generations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.domain.ids import KeyId, SessionId, Sha256, UserId
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.llm.usage import By, Call, Reservation, UsageSum
from orchestrator.domain.people.access import ApiKey
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.generations import Generation


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line of an app's or agent's output."""

    at: datetime
    text: str


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """Something worth remembering about who did what."""

    at: datetime
    actor: str  # user id, key id, "operator", "agent"
    action: str  # e.g. "report_refused", "session_killed"
    subject: str  # id of what it was done to
    detail: str = ""


class BundleRecords(Protocol):
    """Which versions a session has. The bytes are in Bundles."""

    def add(self, record: BundleRecord) -> None:
        """Insert; a repeat of the same session, version and digest is no error."""

    def update(self, record: BundleRecord) -> None:
        """Write healthy, provider and summary of a record that is there."""

    def list(self, session_id: SessionId) -> Sequence[BundleRecord]:
        """Oldest first."""

    def retire(self, session_id: SessionId, delete_after: datetime) -> None:
        """Start the retention of all bundles of a session; a date that is set stays."""

    def take_expired(self, now: datetime) -> Sequence[Sha256]:
        """Delete records past their retention; returns digests that no record names any more."""


class Logs(Protocol):
    """The last lines of each session's app; capped (SPAWN_LOG_LINES per session)."""

    def append(self, session_id: SessionId, lines: Sequence[str], now: datetime) -> None: ...

    def tail(self, session_id: SessionId, limit: int) -> Sequence[LogLine]:
        """Oldest first."""


class Keys(Protocol):
    """API keys, by hash."""

    def add(self, key: ApiKey) -> None:
        """Raises errors.Conflict (key_exists) when an unrevoked key has that name."""

    def by_hash(self, key_hash: str) -> ApiKey | None:
        """None for unknown and revoked ones."""

    def list(self) -> Sequence[ApiKey]: ...

    def revoke(self, key_id: KeyId, now: datetime) -> None:
        """Raises errors.NotFound."""


class Audit(Protocol):
    """Append-only."""

    def add(self, entry: AuditEntry) -> None: ...

    def list(self, limit: int = 100) -> Sequence[AuditEntry]:
        """Newest first."""


class Leases(Protocol):
    """Named leases: exactly one holder at a time."""

    def hold(self, name: str, holder: str, until: datetime, now: datetime) -> bool:
        """Take or renew; False when somebody else's has not run out."""

    def release(self, name: str, holder: str) -> None: ...

    def holder(self, name: str, now: datetime) -> str | None:
        """Who holds it; None when nobody does or its time has run out."""


class Usage(Protocol):
    """Calls to the model: what is set aside for them beforehand, and what they came to."""

    def reserve(self, wanted: Reservation, budgets: Budgets, now: datetime) -> None:
        """Enter the call's worst case in the accounts of its session, its user's day and the day,
        all or none, in one transaction. First gives back what is reserved beyond its expiry, as
        calls that were LOST. Raises errors.BudgetExhausted when an account can't take it."""

    def renew(self, holder: str, until: datetime) -> None:
        """Let no reservation of this holder expire before `until`."""

    def settle(self, call: Call) -> None:
        """Write a call down, and correct the accounts from its worst case to what it came to.
        Repeating it changes nothing."""

    def spent(self, keys: Iterable[str]) -> Mapping[str, Spend]:
        """What has been spent or set aside, by account key; accounts never used are missing."""

    def of_session(self, session_id: SessionId) -> Sequence[UsageSum]:
        """A session's calls that are over, summed by provider, the dearest first."""

    def providers(self, session_id: SessionId, change: int) -> Sequence[str]:
        """Who served the calls of one change (0: of the first version), in order of their end."""

    def outputs(self, *, changes: bool, since: datetime, limit: int) -> Sequence[int]:
        """Output tokens that first versions took, or changes, the latest ones first."""

    def sums(
        self, by: By, *, since: datetime, user_id: UserId | None = None, limit: int = 100
    ) -> Sequence[UsageSum]:
        """Calls that ended at or after `since`: days newest first, the rest dearest first."""

    def prune(self, before: datetime) -> int:
        """Delete calls that ended before then, and accounts untouched since; how many calls."""


class Generations(Protocol):
    """Healthy bundles by what was asked for, to be started again within domain.generation's
    FRESH_FOR."""

    def put(self, generation: Generation) -> None:
        """Keep, in the place of an older one with this key."""

    def find(self, key: str, now: datetime) -> Generation | None: ...

    def prune(self, now: datetime) -> int:
        """Delete those that are no longer fresh; how many."""
