"""A scheduler for pytest-xdist: tests of one file share a worker, and so do all fleet tests.

tests/conftest.py installs it in place of `--dist loadfile`. xdist's own `--dist loadgroup` would
do, but with pytest 9.2 xdist 3.8 silently loses the groups, and each test runs anywhere. The
scheduling process does not collect the tests. It knows only their names, so a file that uses the
fleet must say so in its name.
"""

from __future__ import annotations

from pathlib import PurePath

import pytest
from xdist.scheduler import LoadFileScheduling

FLEET = "fleet"  # the fixture, and the word after test_ in the names of its files
_SLOWEST_FIRST = (FLEET, "e2e", "chaos", "integration", "contract", "unit")


class Scheduler(LoadFileScheduling):
    """Like `--dist loadfile`, but all fleet tests run on one worker: a run has only one fleet."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The group of a test. Tests of a group run on the same worker, one after the other."""
    file = nodeid.partition("::")[0]
    return FLEET if _is_fleet_file(file) else file


def rank_of(nodeid: str) -> int:
    """When a test is started, the lowest first: what takes minutes must not come last, when the
    other workers have nothing left to do."""
    group = group_of(nodeid)
    return _SLOWEST_FIRST.index(group if group == FLEET else PurePath(group).parts[1])


def check_name(item: pytest.Item) -> None:
    """Fail a test that uses the fleet, directly or not, in a file that isn't named for it."""
    uses_fleet = FLEET in getattr(item, "fixturenames", ())
    if uses_fleet and not _is_fleet_file(item.path.name):
        pytest.fail(
            "this test uses the fleet: name its file test_fleet_..., see tests/workers.py",
            pytrace=False,
        )


def _is_fleet_file(file: str) -> bool:
    return PurePath(file).stem.removeprefix("test_").split("_")[0] == FLEET
