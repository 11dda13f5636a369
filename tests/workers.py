"""Which tests share a worker of pytest-xdist: those of a file, and all that use the fleet.

tests/conftest.py hands this to xdist, in place of `--dist loadfile`. Its own `--dist loadgroup`
would be the tool, but with pytest 9.2 xdist 3.8 loses the groups without a word, and each test runs
anywhere. The process that schedules collects no tests and knows their names alone: therefore a file
says by its name that it uses the fleet.
"""

from __future__ import annotations

from pathlib import PurePath

import pytest
from xdist.scheduler import LoadFileScheduling

FLEET = "fleet"  # the fixture, and what all names of its files start with after test_


class Scheduler(LoadFileScheduling):
    """`--dist loadfile`, but for the fleet: there is one per run, and so one worker that has it."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Tests of the same group run on the same worker, one after the other."""
    file = nodeid.partition("::")[0]
    return FLEET if _says_that_it_uses_the_fleet(file) else file


def check_name(item: pytest.Item) -> None:
    """Fail a test that uses the fleet, directly or not, in a file that doesn't say so."""
    uses = FLEET in getattr(item, "fixturenames", ())
    if uses and not _says_that_it_uses_the_fleet(item.path.name):
        pytest.fail(
            "uses the fleet: name its file test_fleet_..., see tests/workers.py", pytrace=False
        )


def _says_that_it_uses_the_fleet(file: str) -> bool:
    return PurePath(file).stem.removeprefix("test_").split("_")[0] == FLEET
