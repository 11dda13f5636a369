"""Properties are checked on the same examples in each run."""

from tests.unit.domain import conftest as _examples  # noqa: F401 - its hypothesis profile holds
