"""Properties are checked here as in the domain."""

from __future__ import annotations

from tests.unit.domain import conftest as _examples  # noqa: F401 - its hypothesis profile holds
