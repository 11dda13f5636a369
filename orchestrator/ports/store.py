"""Port to the whole database: the Store, of which each topic is a part."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from orchestrator.ports.pool import Hosts, Sandboxes
from orchestrator.ports.pool_reads import PoolReads
from orchestrator.ports.records import (
    Audit,
    BundleRecords,
    Changes,
    Generations,
    Keys,
    Leases,
    Logs,
    Usage,
)
from orchestrator.ports.sessions import Sessions


class Store(Protocol):
    """The whole database. Each call is a transaction of its own.

    What is decided for a session is written with it, under its revision: the caller reads, decides
    and calls, and after errors.StaleWrite it starts again with reading.
    """

    @property
    def sessions(self) -> Sessions: ...
    @property
    def sandboxes(self) -> Sandboxes: ...
    @property
    def hosts(self) -> Hosts: ...
    @property
    def pool(self) -> PoolReads: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def bundles(self) -> BundleRecords: ...
    @property
    def logs(self) -> Logs: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def generations(self) -> Generations: ...

    def keyed_reads(self) -> AbstractContextManager[None]:
        """In this block, this thread reads single rows by key alone, and waits for nobody. It may
        also ask for the place of a session in the queue.

        Everything else raises errors.WouldBlock: writes, counts, lists, a place far back. So does
        the block itself if the store is not the embedded database.
        """

    def may_block(self) -> None:
        """Raises errors.WouldBlock in a block of `keyed_reads`.

        For what must happen once, before the write that raises it: who made the block starts again
        in a thread.
        """

    def ping(self) -> None:
        """Raises errors.Temporary if the database doesn't answer."""

    def close(self) -> None: ...
