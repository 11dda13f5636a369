"""The whole pool: refill, surplus, the reserve, and which host gets the next sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.pool import placement
from orchestrator.domain.pool.host import (
    STARTS_AT_ONCE,
    STARTS_IN_LINE,
    Drain,
    HostLoad,
    HostState,
    StartCurve,
)
from orchestrator.domain.pool.refill import (
    SESSIONS_ARRIVING,
    Arrivals,
    PoolTotals,
    Refill,
    Stock,
    WarmLevel,
    calls_at_once,
    missing_slots,
    refill,
    surplus,
)
from tests.fakes import samples
from tests.fakes.samples import IMAGE

NEXT = "spawnai/sandbox:next"
ROOMY = PoolTotals(hosts=2, slots=40, free_slots=30)


def free(slots: int) -> PoolTotals:
    return PoolTotals(hosts=2, slots=40, free_slots=slots)


def load(used: int = 0, starting: int = 0, warm: int = 0, **host: Any) -> HostLoad:
    return HostLoad(host=samples.host(**host), used=used, starting=starting, warm=warm)


def arriving(lasting_s: float, newest_s: float = 0.0) -> Arrivals:
    return Arrivals(lasting_s=lasting_s, newest_s=newest_s)


def level(**changes: Any) -> WarmLevel:
    fields: dict[str, Any] = {
        "target": 3,
        "reserve": 2,
        "warm": 0,
        "outdated": 0,
        "warming": 0,
        "waiting": 0,
        "cold": 0,
        "arrivals": None,
        "totals": ROOMY,
    }
    return WarmLevel(**{**fields, **changes})


# Refill


@pytest.mark.parametrize(
    ("facts", "starts", "reason"),
    [
        ({}, 3, ""),
        ({"warm": 1, "warming": 1}, 1, ""),
        ({"warm": 2, "warming": 1}, 0, ""),
        ({"warm": 4}, 0, "above target"),
        ({"target": 0}, 0, ""),
        ({"outdated": 3}, 3, ""),
        ({"waiting": 1}, 0, "sessions are waiting"),
        ({"waiting": 1, "warm": 1}, 2, ""),
        ({"waiting": 1, "outdated": 1}, 3, ""),
        ({"arrivals": arriving(0.0)}, 0, SESSIONS_ARRIVING),
        ({"arrivals": arriving(0.9)}, 0, SESSIONS_ARRIVING),
        ({"arrivals": arriving(1.0)}, 1, ""),
        ({"arrivals": arriving(9.9, newest_s=1.0)}, 0, SESSIONS_ARRIVING),
        ({"arrivals": arriving(9.9), "warm": 1}, 0, SESSIONS_ARRIVING),
        ({"arrivals": arriving(9.9), "outdated": 1}, 0, SESSIONS_ARRIVING),
        ({"arrivals": arriving(9.9), "waiting": 1}, 0, "sessions are waiting"),
        ({"arrivals": arriving(9.9), "warm": 1, "cold": 1}, 1, ""),
        ({"arrivals": arriving(99.0), "warm": 1}, 1, ""),
        ({"arrivals": arriving(99.0), "warming": 1}, 0, SESSIONS_ARRIVING),
        ({"totals": free(0)}, 0, "no free slot beside the reserve"),
        ({"totals": free(2)}, 0, "no free slot beside the reserve"),
        ({"totals": free(3)}, 1, ""),
        ({"totals": free(2), "reserve": 0}, 2, ""),
        ({"target": 99}, 28, ""),
    ],
)
def test_a_refill_starts_what_is_missing_and_says_why_not(
    facts: dict[str, Any], starts: int, reason: str
) -> None:
    assert refill(level(**facts)) == Refill(starts=starts, reason=reason)


@pytest.mark.parametrize(
    ("target", "warm", "waiting", "cold", "arrivals", "at_once"),
    [
        # nobody is arriving
        (100, 0, 0, 0, None, 4),
        (100, 0, 50, 0, None, 4),
        # for a second all give way
        (100, 100, 0, 0, arriving(0.9), 0),
        (100, 0, 50, 0, arriving(0.9), 0),
        # then as long as the pool has plenty, but not for ever
        (100, 25, 0, 0, arriving(1.0), 0),
        (100, 25, 0, 0, arriving(9.9), 0),
        (100, 25, 0, 0, arriving(10.0), 1),
        # not once it is low: less than a quarter is left, when all who wait have got theirs
        (100, 24, 0, 0, arriving(1.0), 1),
        (100, 35, 10, 0, arriving(1.0), 0),
        (100, 35, 11, 0, arriving(1.0), 1),
        (3, 1, 0, 0, arriving(1.0), 0),
        (3, 1, 1, 0, arriving(1.0), 1),
        (0, 0, 0, 0, arriving(1.0), 1),
        # unless nobody has come for a second: all of a burst are there
        (100, 0, 0, 0, arriving(1.5, newest_s=0.9), 1),
        (100, 0, 0, 0, arriving(2.0, newest_s=1.0), 0),
        (100, 3, 3, 0, arriving(9.9, newest_s=9.0), 0),
        (100, 0, 0, 0, arriving(10.0, newest_s=9.0), 1),
        # never while somebody lacks a warm one: whoever comes takes a slot that others leave
        (100, 0, 1, 0, arriving(2.0, newest_s=2.0), 1),
        (100, 30, 31, 0, arriving(1.0), 1),
        (100, 99, 0, 1, arriving(2.0, newest_s=2.0), 1),
    ],
)
def test_what_nobody_waits_for_gives_way_to_sessions_as_long_as_these_lack_nothing(
    target: int, warm: int, waiting: int, cold: int, arrivals: Arrivals | None, at_once: int
) -> None:
    stock = Stock(target=target, warm=warm, waiting=waiting, cold=cold)
    assert calls_at_once(4, arrivals, stock) == at_once
    assert calls_at_once(4, arrivals, stock, begun=1) == (0 if arrivals else 4)


levels = st.builds(
    level,
    target=st.integers(0, 12),
    reserve=st.integers(0, 4),
    warm=st.integers(0, 8),
    outdated=st.integers(0, 8),
    warming=st.integers(0, 8),
    waiting=st.integers(0, 10),
    arrivals=st.none() | st.builds(Arrivals, lasting_s=st.floats(0, 20), newest_s=st.floats(0, 4)),
    totals=st.integers(0, 20).map(free),
)


@given(levels)
def test_a_refill_never_overshoots(warm_level: WarmLevel) -> None:
    starts = refill(warm_level).starts
    assert 0 <= starts <= max(0, warm_level.target - warm_level.warm - warm_level.warming)
    assert starts <= max(0, warm_level.totals.free_slots - warm_level.reserve), (
        "the reserve is for sessions"
    )
    if warm_level.waiting > warm_level.warm + warm_level.outdated:
        assert starts == 0, "it took a slot that a session waits for"


@given(levels)
def test_a_refill_that_starts_nothing_has_a_reason(warm_level: WarmLevel) -> None:
    decision = refill(warm_level)
    is_reached = warm_level.warm + warm_level.warming == warm_level.target
    assert bool(decision.starts) != bool(decision.reason or is_reached)


# Surplus and the reserve


@pytest.mark.parametrize(
    ("facts", "count"),
    [
        ({}, 0),
        ({"warm": 3}, 0),
        ({"warm": 5}, 2),
        ({"warm": 3, "target": 0}, 3),
        ({"outdated": 3}, 0),
        ({"outdated": 3, "warm": 1}, 1),
        ({"outdated": 3, "warm": 3}, 3),
        ({"outdated": 2, "warm": 1}, 0),
        ({"outdated": 2, "warm": 1, "totals": free(2)}, 1),
        ({"outdated": 2, "warm": 1, "totals": free(2), "warming": 1}, 0),
        ({"warm": 3, "totals": free(0)}, 0),
    ],
)
def test_the_excess_is_retired_or_one_that_blocks_the_new_image(
    facts: dict[str, Any], count: int
) -> None:
    assert surplus(level(**facts)) == count


@given(levels)
def test_retiring_leaves_at_most_one_less_than_the_target(warm_level: WarmLevel) -> None:
    left = warm_level.warm + warm_level.outdated - surplus(warm_level)
    assert left >= min(warm_level.target, warm_level.warm + warm_level.outdated) - 1
    assert 0 <= surplus(warm_level) <= warm_level.warm + warm_level.outdated


@given(
    levels.filter(lambda warm_level: not warm_level.waiting and warm_level.arrivals is None),
    st.integers(1, 4),
)
def test_a_pool_changes_to_the_new_image_and_then_rests(warm_level: WarmLevel, room: int) -> None:
    """Passes of refill and surplus, whose starts and removals are complete by the next pass."""
    warm_level = replace(warm_level, warming=0, totals=free(warm_level.reserve + room))
    for _ in range(60):
        retired = surplus(warm_level)
        old = min(retired, warm_level.outdated)
        started = refill(warm_level).starts
        left = warm_level.totals.free_slots + retired - started
        warm = warm_level.warm - (retired - old) + started
        warm_level = replace(
            warm_level, outdated=warm_level.outdated - old, warm=warm, totals=free(left)
        )
    assert (warm_level.warm, warm_level.outdated) == (
        warm_level.target,
        0,
    ) or warm_level.totals.free_slots <= warm_level.reserve
    assert (refill(warm_level).starts, surplus(warm_level)) == (0, 0)


@pytest.mark.parametrize(("slots", "short"), [(0, 2), (1, 1), (2, 0), (9, 0)])
def test_slots_that_are_missing_from_the_reserve_are_counted(slots: int, short: int) -> None:
    assert missing_slots(free(slots), 2) == short


# Placement

UNFIT: list[dict[str, Any]] = [
    {"state": HostState.JOINING},
    {"state": HostState.SUSPECT},
    {"state": HostState.LOST},
    {"cordoned": True},
    {"drain": Drain.WAIT},
    {"drain": Drain.MOVE},
    {"drain": Drain.LEAVE},
    {"shortage": "its disk is full"},
]


@pytest.mark.parametrize("unfit", UNFIT, ids=str)
def test_a_host_that_takes_no_placements_gets_nothing(unfit: dict[str, Any]) -> None:
    assert not load(**unfit).host.accepts_placements
    for for_warm in (False, True):
        assert not placement.can_place(load(**unfit), for_warm=for_warm)
        assert placement.rank([load(**unfit)], image=IMAGE, for_warm=for_warm) == []


@pytest.mark.parametrize(
    ("curve", "at_once"),
    [((), 3), ((1.0, 3.0, 6.0), 1), ((1.0, 1.2, 9.0), 2), ((1.0, 1.2, None), 3)],
)
def test_a_host_starts_as_many_at_once_as_its_curve_allows(
    curve: tuple[float | None, ...], at_once: int
) -> None:
    starts = StartCurve(seconds=curve) if curve else StartCurve()
    for for_warm, most in ((True, at_once), (False, at_once + STARTS_IN_LINE)):
        roomy, busy = (load(used=3, starting=count, starts=starts) for count in (most - 1, most))
        assert placement.can_place(roomy, for_warm=for_warm)
        assert not placement.can_place(busy, for_warm=for_warm)


def test_a_full_host_gets_nothing() -> None:
    assert not placement.can_place(load(used=4), for_warm=False)
    assert not placement.can_place(load(used=5), for_warm=False), "its slots were made fewer"


def test_warm_sandboxes_are_spread_and_sessions_go_where_room_is() -> None:
    roomy, bare = load(used=1, warm=1, slots=99), load(used=3, slots=4)
    assert list(placement.rank([roomy, bare], image=IMAGE, for_warm=True)) == [bare, roomy]
    assert list(placement.rank([roomy, bare], image=IMAGE, for_warm=False)) == [roomy, bare]


def test_only_a_session_takes_an_older_image_rather_than_none() -> None:
    older, newer = load(slots=99), load(used=3, image=NEXT)
    assert list(placement.rank([older, newer], image=NEXT, for_warm=True)) == [newer]
    assert list(placement.rank([older, newer], image=NEXT, for_warm=False)) == [newer, older]


loads = st.builds(
    lambda slots, used, starting, warm, image, unfit: load(
        used=used, starting=min(starting, used), warm=warm, slots=slots, image=image, **unfit
    ),
    st.integers(0, 10),
    st.integers(0, 12),
    st.integers(0, STARTS_AT_ONCE + 1),
    st.integers(0, 3),
    st.sampled_from([IMAGE, NEXT]),
    st.sampled_from([{}, {}, {}, *UNFIT]),
)


@given(st.lists(loads, max_size=6), st.booleans())
def test_all_usable_hosts_are_ranked_whatever_their_order(
    hosts: Sequence[HostLoad], for_warm: bool
) -> None:
    ranked = placement.rank(hosts, image=IMAGE, for_warm=for_warm)
    usable = [load for load in hosts if placement.can_place(load, for_warm=for_warm)]
    usable = [load for load in usable if load.host.image == IMAGE or not for_warm]
    assert {load.host.id for load in ranked} == {load.host.id for load in usable}
    reversed_ranked = placement.rank(list(reversed(hosts)), image=IMAGE, for_warm=for_warm)
    assert list(reversed_ranked) == list(ranked), "it depends on the order"


@given(st.lists(loads, max_size=6))
def test_of_hosts_with_the_image_the_one_with_most_room_comes_first(
    hosts: Sequence[HostLoad],
) -> None:
    ranked = placement.rank(hosts, image=IMAGE, for_warm=False)
    room = [load.free - load.starting for load in ranked if load.host.image == IMAGE]
    assert room == sorted(room, reverse=True)
