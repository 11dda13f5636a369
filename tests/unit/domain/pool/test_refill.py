"""The pool as a whole: refill, surplus, the reserve, and which host takes the next sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.pool import placement
from orchestrator.domain.pool import refill as pool
from orchestrator.domain.pool.host import STARTS_AT_ONCE, Drain, HostLoad, HostState, StartCurve
from orchestrator.domain.pool.refill import PoolTotals, WarmLevel, refill, surplus
from tests.fakes import samples
from tests.fakes.samples import IMAGE

NEXT = "spawnai/sandbox:next"
ROOMY = PoolTotals(hosts=2, slots=40, free_slots=30)


def free(slots: int) -> PoolTotals:
    return PoolTotals(hosts=2, slots=40, free_slots=slots)


def load(used: int = 0, starting: int = 0, warm: int = 0, **host: Any) -> HostLoad:
    return HostLoad(host=samples.host(**host), used=used, starting=starting, warm=warm)


def level(**changes: Any) -> WarmLevel:
    fields: dict[str, Any] = {
        "target": 3,
        "reserve": 2,
        "warm": 0,
        "outdated": 0,
        "warming": 0,
        "waiting": 0,
        "arriving": 0,
        "postponed_s": 0.0,
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
        ({"arriving": 1}, 0, pool.GIVING_WAY),
        ({"arriving": 1, "postponed_s": 1.9}, 0, pool.GIVING_WAY),
        ({"arriving": 1, "postponed_s": 2.0}, 3, ""),
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
    assert refill(level(**facts)) == pool.Refill(starts=starts, reason=reason)


levels = st.builds(
    level,
    target=st.integers(0, 12),
    reserve=st.integers(0, 4),
    warm=st.integers(0, 8),
    outdated=st.integers(0, 8),
    warming=st.integers(0, 8),
    waiting=st.integers(0, 10),
    arriving=st.integers(0, 2),
    postponed_s=st.floats(0, 4),
    totals=st.integers(0, 20).map(free),
)


@given(levels)
def test_a_refill_never_overshoots(seen: WarmLevel) -> None:
    starts = refill(seen).starts
    assert 0 <= starts <= max(0, seen.target - seen.warm - seen.warming)
    assert starts <= max(0, seen.totals.free_slots - seen.reserve), "the reserve is for sessions"
    if seen.waiting > seen.warm + seen.outdated:
        assert starts == 0, "it took a slot that a session waits for"


@given(levels)
def test_nothing_is_started_only_for_a_reason(seen: WarmLevel) -> None:
    decision = refill(seen)
    reached = seen.warm + seen.warming == seen.target
    assert bool(decision.starts) != bool(decision.reason or reached)


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
def test_as_many_go_as_are_too_many_or_one_that_is_in_the_way_of_a_new_image(
    facts: dict[str, Any], count: int
) -> None:
    assert surplus(level(**facts)) == count


@given(levels)
def test_what_is_let_go_never_leaves_fewer_than_wanted_but_for_one(seen: WarmLevel) -> None:
    left = seen.warm + seen.outdated - surplus(seen)
    assert left >= min(seen.target, seen.warm + seen.outdated) - 1
    assert 0 <= surplus(seen) <= seen.warm + seen.outdated


@given(levels.filter(lambda seen: not seen.waiting and not seen.arriving), st.integers(1, 4))
def test_a_pool_comes_to_the_new_image_and_then_rests(seen: WarmLevel, room: int) -> None:
    """Passes of refill and surplus, whose starts and removals are done by the next pass."""
    seen = replace(seen, warming=0, totals=free(seen.reserve + room))
    for _ in range(60):
        gone = surplus(seen)
        old = min(gone, seen.outdated)
        begun = refill(seen).starts
        left = seen.totals.free_slots + gone - begun
        warm = seen.warm - (gone - old) + begun
        seen = replace(seen, outdated=seen.outdated - old, warm=warm, totals=free(left))
    assert (seen.warm, seen.outdated) == (seen.target, 0) or seen.totals.free_slots <= seen.reserve
    assert (refill(seen).starts, surplus(seen)) == (0, 0)


@pytest.mark.parametrize(("slots", "short"), [(0, 2), (1, 1), (2, 0), (9, 0)])
def test_a_pool_says_how_many_slots_it_lacks(slots: int, short: int) -> None:
    assert pool.short_of_slots(free(slots), 2) == short


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
def test_a_host_that_is_not_open_gets_nothing(unfit: dict[str, Any]) -> None:
    assert not load(**unfit).host.open
    assert not placement.placeable(load(**unfit))
    for for_warm in (False, True):
        assert placement.rank([load(**unfit)], image=IMAGE, for_warm=for_warm) == []


@pytest.mark.parametrize(
    ("curve", "at_once"),
    [((), 3), ((1.0, 3.0, 6.0), 1), ((1.0, 1.2, 9.0), 2), ((1.0, 1.2, None), 3)],
)
def test_a_host_starts_as_many_at_once_as_its_curve_allows(
    curve: tuple[float | None, ...], at_once: int
) -> None:
    starts = StartCurve(seconds=curve) if curve else StartCurve()
    assert placement.placeable(load(used=3, starting=at_once - 1, starts=starts))
    assert not placement.placeable(load(used=3, starting=at_once, starts=starts))


def test_a_full_host_gets_nothing() -> None:
    assert not placement.placeable(load(used=4))
    assert not placement.placeable(load(used=5)), "its slots were made fewer"


def test_warm_sandboxes_are_spread_before_they_are_where_room_is() -> None:
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
def test_all_that_are_fit_are_ranked_whatever_their_order(
    hosts: Sequence[HostLoad], for_warm: bool
) -> None:
    ranked = placement.rank(hosts, image=IMAGE, for_warm=for_warm)
    fit = [one for one in hosts if placement.placeable(one)]
    fit = [one for one in fit if one.host.image == IMAGE or not for_warm]
    assert {one.host.id for one in ranked} == {one.host.id for one in fit}
    again = placement.rank(list(reversed(hosts)), image=IMAGE, for_warm=for_warm)
    assert list(again) == list(ranked), "it depends on the order"


@given(st.lists(loads, max_size=6))
def test_of_hosts_with_the_image_the_one_with_most_room_comes_first(
    hosts: Sequence[HostLoad],
) -> None:
    ranked = placement.rank(hosts, image=IMAGE, for_warm=False)
    room = [one.free - one.starting for one in ranked if one.host.image == IMAGE]
    assert room == sorted(room, reverse=True)
