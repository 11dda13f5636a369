"""All tests of a file run on the same worker, and so do all files that use the fleet."""

from __future__ import annotations

import pytest

from tests.workers import group_of, rank_of


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/test_docs.py::test_links[README.md]", "tests/unit/test_docs.py"),
        ("tests/e2e/test_kills.py::TestOne::test_a", "tests/e2e/test_kills.py"),
        ("tests/e2e/test_fleet.py::test_a[a::b]", "fleet"),
        ("tests/integration/hosts/test_fleet_rig.py::test_a", "fleet"),
        ("tests/unit/test_fleeting.py::test_a", "tests/unit/test_fleeting.py"),
    ],
)
def test_each_file_is_a_group_and_all_fleet_files_are_one(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_what_takes_long_is_started_first() -> None:
    names = [
        "tests/e2e/fleet/test_fleet.py::test_a",
        "tests/e2e/test_kills.py::test_a",
        "tests/chaos/test_redis.py::test_a",
        "tests/integration/store/test_leader.py::test_a",
        "tests/contract/store/test_usage.py::test_a",
        "tests/unit/test_docs.py::test_a",
    ]
    assert [rank_of(name) for name in names] == list(range(6))
