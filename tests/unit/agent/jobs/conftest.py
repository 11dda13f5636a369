"""What tests of the agent's jobs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.agents.home import FakeHome


@pytest.fixture
def home(tmp_path: Path) -> Iterator[FakeHome]:
    with FakeHome(tmp_path) as home:
        yield home
