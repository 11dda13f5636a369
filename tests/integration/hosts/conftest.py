"""Some tests of hosts run the daemon's loops on the same world as the services' tests."""

from __future__ import annotations

from tests.unit.services.conftest import catalog, world

__all__ = ["catalog", "world"]
