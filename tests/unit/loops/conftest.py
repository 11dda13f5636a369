"""The loops run on the same world as the services."""

from __future__ import annotations

from tests.unit.services.conftest import catalog, world

__all__ = ["catalog", "world"]
