"""One installation for all tests that don't break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.installation import Installation, installed


@pytest.fixture(scope="session")
def spawn() -> Iterator[Installation]:
    """Runs for the whole test session, without a Claude key."""
    with installed() as one:
        yield one
