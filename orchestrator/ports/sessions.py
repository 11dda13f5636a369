"""Port to the sessions in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.rooms import Demand, Waiting
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.ports.store_inputs import Idempotency, SessionPosition


class Sessions(Protocol):
    """Sessions and their history. Every write increases `revision`."""

    def add(
        self,
        session: Session,
        idempotency: Idempotency | None,
        *,
        max_active: int,
        max_per_minute: int | None = None,
        max_ahead: int | None = None,
        version: BundleRecord | None = None,
    ) -> Session:
        """Insert the session, with its first version if it starts from one, and return it.

        If the user has used the idempotency key before, with the same fingerprint, return the
        session of that time, unchanged. Raises errors.Conflict (idempotency_conflict) if the
        fingerprint differs, and errors.LimitReached (detail: limit) if the user already has
        `max_active` sessions that haven't ended. They are counted in the same transaction, under a
        lock on the user, so that concurrent calls can't exceed the limit. Likewise LimitReached
        (too_many_starts) if the user has added `max_per_minute` sessions in the minute before
        `created_at`; ended ones count as long as they are stored. Raises errors.NoCapacity
        (queue_full; detail: limit) if `max_ahead` or more sessions would be served before it.
        """

    def get(self, session_id: SessionId) -> Session:
        """Raises errors.NotFound."""

    def save(self, session: Session) -> Session:
        """Write the session, and return it with its next revision.

        A new entry of its history becomes an event. Raises errors.StaleWrite if its revision is no
        longer the stored one, and errors.NotFound.
        """

    def list(
        self,
        *,
        user_id: UserId | None = None,
        states: Iterable[SessionState] | None = None,
        id_prefix: str = "",
        after: SessionPosition | None = None,
        limit: int = 100,
    ) -> Sequence[Session]:
        """Sessions that haven't ended first, then those that have. Newest first within each.

        A session that ends between two calls may be listed twice. None is left out.
        """

    def counts(self) -> dict[SessionState, int]:
        """How many sessions are in each state. States without any are left out."""

    def newest_in(self, states: Iterable[SessionState]) -> datetime | None:
        """When the newest session in one of these states was created; None: there is none. Reads
        only those."""

    def count_ahead_of(self, session: Session, now: datetime) -> int:
        """How many sessions of the queue come before it and compete with it for hosts.

        In the queue are QUEUED and wanted sessions that are due or recover. They are ordered by
        rank, age, then id. Who competes says domain.sessions.rooms.count_competing.
        """

    def demand_ahead_of(self, session: Session, now: datetime) -> Sequence[Demand]:
        """What the sessions before it in the queue need."""

    def demand(self, now: datetime) -> Sequence[Demand]:
        """What the sessions in the queue need."""

    def queue(self, now: datetime, limit: int) -> Sequence[Waiting]:
        """The first `limit` sessions of the queue, in order. Those that recover may not be due."""

    def due(self, now: datetime, limit: int) -> Sequence[Session]:
        """Due sessions that haven't ended and aren't in the queue. The longest due comes first."""

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        """These sessions, in this order. One that isn't stored is left out."""

    def expire(self, now: datetime, limit: int) -> Sequence[Session]:
        """Set wanted = GONE and due_at = now for sessions whose time is up, and return them.

        Those are wanted RUNNING, haven't ended, and expires_at <= now. Checking and writing is one
        transaction, so that an extension that commits first wins.
        """

    def prune(self, ended_before: datetime) -> int:
        """Delete sessions that ended before then, with their events and logs. Returns how many."""

    def prune_surplus(self, ended_before: datetime, *, per_user: int, total: int) -> int:
        """Delete ended sessions of which a user has more than `per_user`, operators excepted, or
        all users together more than `total`: first those whose app never ran for ten minutes, and
        of them the oldest of whoever has the most. Each has ended before then. As `prune`, and with
        the sandboxes that they had that are GONE."""
