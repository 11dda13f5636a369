"""What tests of the gateway need of the services' test world."""

from __future__ import annotations

from tests.unit.services.conftest import catalog, world

__all__ = ["catalog", "world"]
