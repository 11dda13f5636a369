"""Who gets the CPU limit of a start, and who loses it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import ids
from orchestrator.domain.pool.cpu_limits import SETTLE, SPURT, CpuHolder, CpuLimits, CpuUse, plan
from orchestrator.domain.pool.host import Host
from tests.fakes import samples
from tests.fakes.samples import NOW, later

LONG = SPURT.total_seconds() + 1
LIMITS = CpuLimits()


def host(**changes: Any) -> Host:
    return samples.host(**{"cpus": 4, "changes_cpus": True, **changes})


def holder(use: CpuUse, *, raised: bool, since_s: float = 0) -> CpuHolder:
    return CpuHolder(
        sandbox_id=ids.new_sandbox_id(),
        host_id=ids.new_host_id(),
        container_id="c" * 64,
        raised=raised,
        use=use,
        since=later(-since_s),
    )


def planned(*holders: CpuHolder, **changes: Any) -> list[tuple[CpuHolder, float]]:
    """Who gets another limit, and which."""
    changes_of_limits = plan(holders, host(**changes), LIMITS, NOW)
    for change in changes_of_limits:
        assert change.raised == (change.cpus > LIMITS.share)
    return [(change.holder, change.cpus) for change in changes_of_limits]


@pytest.mark.parametrize(
    ("share", "start", "cpus", "expected"),
    [
        (0.5, 0, 1, 1),
        (0.5, 0, 2, 2),
        (0.5, 0, 64, 2),
        (0.5, 4, 64, 4),
        (0.5, 4, 3, 3),
        (0.5, 0, 0, 0.5),  # nobody has asked the engine yet
        (3, 0, 8, 3),
        (0.5, 0.25, 8, 0.5),
    ],
)
def test_a_start_gets_no_more_than_its_host_has_and_no_less_than_its_share(
    share: float, start: float, cpus: int, expected: float
) -> None:
    assert CpuLimits(share=share, start=start).at_start(host(cpus=cpus)) == expected


@pytest.mark.parametrize(("start", "can"), [(0, True), (0.5, False), (0.4, False), (0.6, True)])
def test_limits_differ_if_a_start_may_get_more(start: float, can: bool) -> None:
    assert CpuLimits(start=start).can_differ is can


def test_who_is_ready_gets_its_share_again_whatever_the_others_do() -> None:
    settled_s = SETTLE.total_seconds()
    ready = holder(CpuUse.SERVING, raised=True, since_s=settled_s)
    fresh = holder(CpuUse.SERVING, raised=True, since_s=settled_s - 0.1)
    working = holder(CpuUse.WORKING, raised=True)
    assert planned(ready, fresh, working) == [(ready, 0.5)]
    plain = holder(CpuUse.SERVING, raised=False)
    assert planned(plain) == []


@pytest.mark.parametrize("use", [CpuUse.WAITING, CpuUse.WORKING])
def test_who_waits_or_works_is_raised(use: CpuUse) -> None:
    plain = holder(use, raised=False)
    assert planned(plain) == [(plain, 2)]
    assert planned(holder(use, raised=True)) == []


def test_who_works_for_long_shares_what_the_host_has() -> None:
    old = [holder(CpuUse.WORKING, raised=True, since_s=LONG + age) for age in range(4)]
    assert planned(*old) == [(old[2], 0.5), (old[3], 0.5)]
    young = holder(CpuUse.WORKING, raised=True, since_s=1)
    assert planned(*old, young) == [(old[1], 0.5), (old[2], 0.5), (old[3], 0.5)]


def test_of_those_who_work_for_long_one_is_raised_on_the_smallest_host() -> None:
    first = holder(CpuUse.WORKING, raised=False, since_s=LONG)
    second = holder(CpuUse.WORKING, raised=False, since_s=LONG + 1)
    assert planned(first, second, cpus=1) == [(first, 1)]


def test_a_burst_of_starts_is_raised_whatever_the_host_has() -> None:
    burst = [holder(CpuUse.WORKING, raised=False, since_s=age) for age in range(9)]
    assert planned(*burst) == [(young, 2) for young in burst]


def test_limits_are_lowered_before_any_is_raised_and_warm_ones_come_last() -> None:
    warm = holder(CpuUse.WAITING, raised=False)
    working = holder(CpuUse.WORKING, raised=False)
    ready = holder(CpuUse.SERVING, raised=True, since_s=LONG)
    assert [changed for changed, _ in planned(warm, working, ready)] == [ready, working, warm]


def test_nobody_is_raised_where_the_engine_can_not_lower() -> None:
    warm = holder(CpuUse.WAITING, raised=False)
    stuck = holder(CpuUse.WORKING, raised=True)
    assert planned(warm, stuck, changes_cpus=False) == [(stuck, 0.5)]
    assert planned(warm, changes_cpus=None) == [(warm, 2)], "somebody has to try it"


def test_nobody_is_raised_on_a_host_that_has_no_more_than_the_share() -> None:
    warm = holder(CpuUse.WAITING, raised=False)
    assert planned(warm, cpus=0) == []
