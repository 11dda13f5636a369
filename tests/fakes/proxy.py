"""Proxies that tests can break: ports.Proxy, in memory."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.domain import errors
from orchestrator.domain.pool.routes import RouteTable


class ProxyInMemory:
    """A working proxy: a published table is in force at once."""

    def __init__(self) -> None:
        self.tables: list[RouteTable] = []  # all that were in force, in order

    def publish(self, table: RouteTable, *, afresh: bool = False) -> None:
        self.tables.append(table)

    def published(self) -> str | None:
        return self.tables[-1].digest if self.tables else None

    @property
    def slugs(self) -> set[str]:
        """The slugs that can be reached now."""
        return {route.slug for route in self.tables[-1].routes} if self.tables else set()

    def forget(self) -> None:
        """Restart without a table."""
        self.tables.clear()


class ProxyThatRejects(ProxyInMemory):
    """Rejects every table. The last good one stays in force."""

    def publish(self, table: RouteTable, *, afresh: bool = False) -> None:
        raise errors.ProxyRejected("the rendered configuration has a mistake in line 1")


class ProxyThatIsAway(ProxyInMemory):
    """Is not running."""

    def publish(self, table: RouteTable, *, afresh: bool = False) -> None:
        raise errors.ProxyUnavailable("the proxy isn't running")

    def published(self) -> str | None:
        return None


class ProxyThatIsSlow(ProxyInMemory):
    """Takes so long for its next table that `meanwhile` runs before the table is in force."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile: Callable[[], None] | None = meanwhile

    def publish(self, table: RouteTable, *, afresh: bool = False) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        super().publish(table, afresh=afresh)
