"""Refill and placement: the pool fills up to its target and never beyond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import pool
from orchestrator.domain.host import HostLoad, HostState
from orchestrator.domain.pool import STARTS_AT_ONCE, WarmLevel, refill
from tests.fakes import samples


def load(used: int = 0, starting: int = 0, **host: Any) -> HostLoad:
    return HostLoad(host=samples.host(**host), used=used, starting=starting)


def level(**changes: Any) -> WarmLevel:
    fields: dict[str, Any] = {
        "target": 3,
        "warm": 0,
        "warming": 0,
        "waiting": 0,
        "arriving": 0,
        "postponed_s": 0.0,
        "loads": (load(),),
    }
    return WarmLevel(**{**fields, **changes})


@pytest.mark.parametrize(
    ("facts", "starts", "reason"),
    [
        ({}, 3, ""),
        ({"warm": 1, "warming": 1}, 1, ""),
        ({"warm": 2, "warming": 1}, 0, ""),
        ({"warm": 4}, 0, "above target"),
        ({"target": 0}, 0, ""),
        ({"waiting": 1}, 0, "sessions are waiting"),
        ({"waiting": 1, "warm": 1}, 2, ""),
        ({"arriving": 1}, 0, pool.GIVING_WAY),
        ({"arriving": 1, "postponed_s": 1.9}, 0, pool.GIVING_WAY),
        ({"arriving": 1, "postponed_s": 2.0}, 3, ""),
        ({"loads": ()}, 0, "no free slot"),
        ({"loads": (load(used=4),)}, 0, "no free slot"),
        ({"loads": (load(used=3),)}, 1, ""),
        ({"loads": (load(used=2, starting=2),)}, 1, ""),
        ({"target": 9, "loads": (load(), load(slots=9))}, 6, ""),
    ],
)
def test_a_refill_starts_what_is_missing_and_says_why_not(
    facts: dict[str, Any], starts: int, reason: str
) -> None:
    assert refill(level(**facts)) == pool.Refill(starts=starts, reason=reason)


UNFIT: list[dict[str, Any]] = [
    {"state": HostState.JOINING},
    {"state": HostState.SUSPECT},
    {"state": HostState.LOST},
    {"cordoned": True},
    {"draining": True},
]


@pytest.mark.parametrize("unfit", UNFIT, ids=str)
def test_a_host_that_is_not_open_gets_nothing(unfit: dict[str, Any]) -> None:
    assert not pool.open_for_placement(load(**unfit))
    assert not pool.placeable(load(**unfit))
    assert refill(level(loads=(load(**unfit),))).starts == 0
    assert pool.rank([load(**unfit)]) == []


hosts = st.builds(
    lambda slots, used, starting, unfit: load(
        used=used, starting=min(starting, used), slots=slots, **unfit
    ),
    st.integers(0, 10),
    st.integers(0, 12),
    st.integers(0, 5),
    st.sampled_from([{}, {}, {}, *UNFIT]),
)
levels = st.builds(
    level,
    target=st.integers(0, 12),
    warm=st.integers(0, 8),
    warming=st.integers(0, 8),
    waiting=st.integers(0, 10),
    arriving=st.integers(0, 2),
    postponed_s=st.floats(0, 4),
    loads=st.lists(hosts, max_size=4).map(tuple),
)


@given(levels)
def test_a_refill_never_overshoots(seen: WarmLevel) -> None:
    starts = refill(seen).starts
    assert 0 <= starts <= max(0, seen.target - seen.warm - seen.warming)
    fit = [one for one in seen.loads if pool.open_for_placement(one)]
    assert starts <= sum(one.free for one in fit)
    assert starts <= sum(max(0, STARTS_AT_ONCE - one.starting) for one in fit)
    if seen.waiting > seen.warm:
        assert starts == 0, "it took a slot that a session waits for"


@given(levels)
def test_nothing_is_started_only_for_a_reason(seen: WarmLevel) -> None:
    decision = refill(seen)
    reached = seen.warm + seen.warming == seen.target
    assert bool(decision.starts) != bool(decision.reason or reached)


@given(st.lists(hosts, max_size=6))
def test_the_host_with_most_room_comes_first(loads: Sequence[HostLoad]) -> None:
    ranked = pool.rank(loads)
    room = [one.free - one.starting for one in ranked]
    assert room == sorted(room, reverse=True)
    assert {one.host.id for one in ranked} == {one.host.id for one in loads if pool.placeable(one)}
    assert list(pool.rank(list(reversed(loads)))) == list(ranked), "it depends on the order"
