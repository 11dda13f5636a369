"""Whether another control plane uses our database: then this one is a standby.

prepare.py asks at the start, before it changes anything, and the standby itself while it waits.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.sql_store import upgrade
from orchestrator.domain import errors
from orchestrator.entrypoints.leadership import holders
from orchestrator.entrypoints.leadership.lease import LEASE, LEASE_S
from orchestrator.ports import LeaseRecord

_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class OtherLeader:
    """The other control plane of this database."""

    host: str  # where its daemon leads; "" if none leads at the moment
    owner: str = ""  # the id of its installation; "" if that is ours

    def describe(self) -> str:
        """What this control plane is, and what an operator can do."""
        whose = f"the installation {self.owner}" if self.owner else "this installation"
        if self.host:
            ways_out = (
                "To run both, set SPAWN_DATABASE_URL to a database of its own."
                if self.owner
                else "To run it here instead, stop it there first."
            )
            return (
                f"standby: the control plane on {self.host} leads {whose} in this database, so this"
                f" one does nothing. {ways_out}"
            )
        if self.owner:
            return (
                f"standby: this database belongs to {whose}, which nobody leads at the moment. To"
                " take it over: spawnctl down, copy its state folder here, spawnctl up. To begin"
                " anew: set SPAWN_DATABASE_URL to a database of its own"
            )
        return (
            f"standby: nobody leads {whose} any more. To take it over: spawnctl down, then"
            " spawnctl up, both here"
        )


@dataclass(kw_only=True)
class Search:
    """Looks for the other control plane again and again.

    One that lives renews its lease under our eyes, so machines need not agree on the time. What an
    earlier boot or container of ours has left is not renewed.
    """

    url: str
    installation: str
    state_dir: Path
    is_sure: bool = False  # whether the lease was watched for long enough
    _seen: LeaseRecord | None = None
    _seen_at: float = 0.0

    def look(self) -> OtherLeader | None:
        """The other control plane of this database. None: there is none.

        Raises errors.Temporary when the database is away, errors.Conflict (database_newer).
        """
        owner = _find_owner(self.url, self.installation)
        record = upgrade.read_lease(self.url, LEASE)
        holder = holders.parse("" if record is None else record.holder)
        ours = holders.holder_of(os.getpid(), self.state_dir)
        is_theirs = record is not None and (owner or holder.is_elsewhere(ours))
        self.is_sure = self.is_sure or not is_theirs
        host = holder.host if record and is_theirs and self._is_alive(record) else ""
        return OtherLeader(host=host, owner=owner) if host or owner else None

    def look_at_start(self) -> OtherLeader | None:
        """As `look`, once we are sure: that takes as long as a lease at most."""
        while True:
            other = self.look()
            if other is None or other.owner or self.is_sure:
                return other
            time.sleep(_POLL_S)

    def _is_alive(self, record: LeaseRecord) -> bool:
        if record.is_released:
            self.is_sure = True
            return False
        if record != self._seen:
            self.is_sure = self._seen is not None
            self._seen, self._seen_at = record, time.monotonic()
        return time.monotonic() - self._seen_at < LEASE_S + _POLL_S


def _find_owner(url: str, installation: str) -> str:
    """The other installation that owns the database; "" if it is ours or nobody's."""
    try:
        upgrade.inspect(url, installation)
    except errors.Conflict as error:
        if error.code != "database_taken":
            raise
        return str(error.detail["owner"])
    return ""
