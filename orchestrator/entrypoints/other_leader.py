"""Whether another control plane uses our database: then this one is a standby.

prepare.py asks at the start, before it changes anything, and the standby itself while it waits.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.adapters.sql_store import upgrade
from orchestrator.domain import errors
from orchestrator.entrypoints import holders
from orchestrator.entrypoints.lease import LEASE, LEASE_S

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


def find(url: str, installation: str, state_dir: Path) -> OtherLeader | None:
    """The other control plane of this database, at the moment. None: there is none.

    Raises errors.Temporary when the database is away, errors.Conflict (database_newer).
    """
    owner = _find_owner(url, installation)
    record = upgrade.read_lease(url, LEASE)
    host = ""
    if record is not None and record.until > datetime.now(UTC):
        holder = holders.parse(record.holder)
        is_elsewhere = holder.is_elsewhere(holders.holder_of(os.getpid(), state_dir))
        host = holder.host if owner or is_elsewhere else ""
    return OtherLeader(host=host, owner=owner) if host or owner else None


def find_at_start(url: str, installation: str, state_dir: Path) -> OtherLeader | None:
    """As `find`, but a leader that has ended without a word is waited for, as long as its lease
    lasts: it may have been ours, in an earlier boot or container."""
    deadline = time.monotonic() + LEASE_S + 1
    while True:
        other = find(url, installation, state_dir)
        if other is None or other.owner or time.monotonic() > deadline:
            return other
        time.sleep(_POLL_S)


def _find_owner(url: str, installation: str) -> str:
    """The other installation that owns the database; "" if it is ours or nobody's."""
    try:
        upgrade.inspect(url, installation)
    except errors.Conflict as error:
        if error.code != "database_taken":
            raise
        return str(error.detail["owner"])
    return ""
