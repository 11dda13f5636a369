"""Property tests here use the settings of the domain's tests."""

from __future__ import annotations

from tests.unit.domain import conftest as _examples  # noqa: F401 - it sets the hypothesis profile
