"""Who of the queue gets a room, and who competes with whom."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import ids
from orchestrator.domain.pool.host import HostKind, Wish
from orchestrator.domain.sessions.rooms import Allotment, Demand, count_competing

EU, US, ANY = Wish(region="eu"), Wish(region="us"), Wish()
GPU = Wish(labels={"gpu": "yes"})


def kind(region: str, *, free: int = 0, warm: int = 0, **changes: object) -> HostKind:
    fields = {"labels": {}, "accepts_claims": True, "slots": 4, "host_ids": [ids.new_host_id()]}
    return HostKind(region=region, free=free, warm=warm, **{**fields, **changes})  # type: ignore[arg-type] # each test gives the right ones


def test_sessions_that_no_room_suits_take_none_from_others() -> None:
    allotment = Allotment([kind("eu", free=9, accepts_claims=False), kind("us", free=1, warm=1)])
    assert allotment.take(Demand(wish=EU, count=50)) == 0
    assert allotment.take(Demand(cold=True, count=2)) == 1, "cold ones get no warm sandbox"
    assert allotment.turn_of(Demand()).has_come
    assert not allotment.turn_of(Demand(cold=True)).has_come
    assert allotment.take(Demand(count=2)) == 1


def test_a_session_that_any_room_suits_makes_way_for_one_that_few_suit() -> None:
    allotment = Allotment([kind("eu", free=1), kind("us", free=1)])
    assert [allotment.take(Demand(wish=wish)) for wish in (ANY, US, EU)] == [1, 1, 0]
    allotment = Allotment([kind("eu", free=1), kind("us", free=1)])
    assert [allotment.take(Demand(wish=wish)) for wish in (ANY, EU, US)] == [1, 1, 0]


def test_a_turn_names_the_hosts_of_which_others_need_every_room() -> None:
    eu, us = kind("eu", free=1, warm=1), kind("us", free=1)
    allotment = Allotment([eu, us])
    allotment.take(Demand(wish=EU, count=2))
    turn = allotment.turn_of(Demand())
    assert (turn.has_come, turn.keep_warm, turn.keep_free) == (True, eu.host_ids, eu.host_ids)
    assert not allotment.turn_of(Demand(wish=EU)).has_come
    allotment.take(Demand())
    assert not allotment.turn_of(Demand()).has_come


def test_those_compete_who_wait_for_the_same_hosts() -> None:
    away, full, roomy = (
        kind("away", accepts_claims=False),
        kind("eu", labels={"gpu": "yes"}),
        kind("us", free=2),
    )
    gone, eu, gpu = Demand(wish=Wish(region="away"), count=7), Demand(wish=EU, count=6), GPU
    assert count_competing([away, full, roomy], ANY, [gone, eu]) == 0
    assert count_competing([away, full, roomy], gpu, [gone, eu, Demand(count=3)]) == 6
    assert count_competing([away, full, roomy], gone.wish, [gone, eu, Demand(count=3)]) == 7
    everything_full = [away, full, kind("us")]
    assert count_competing(everything_full, ANY, [gone, eu, Demand(count=3)]) == 4 + 3
    assert count_competing(everything_full, EU, [gone, eu, Demand(count=3)]) == 6 + 3
    assert count_competing([], ANY, [eu, Demand(count=3)]) == 3, "equals always compete"


def _one_by_one(kinds: Sequence[HostKind], wishes: Sequence[Wish]) -> list[bool]:
    """Who gets a room, by trying every way to shift one session after the other."""
    rooms = [each for each in kinds for _ in range(each.free) if each.accepts_claims]
    holders: dict[int, int] = {}

    def find(session: int, tried: set[int]) -> bool:
        for room, each in enumerate(rooms):
            if room in tried or not each.meets(wishes[session]):
                continue
            tried.add(room)
            if room not in holders or find(holders[room], tried):
                holders[room] = session
                return True
        return False

    return [find(session, set()) for session in range(len(wishes))]


WISHES = st.builds(
    Wish,
    region=st.sampled_from(["", "", "eu", "us"]),
    labels=st.dictionaries(st.sampled_from("ab"), st.just("1"), max_size=2),
)
KINDS = st.builds(
    kind,
    st.sampled_from(["eu", "us"]),
    free=st.integers(0, 3),
    labels=st.dictionaries(st.sampled_from("ab"), st.just("1"), max_size=2),
    accepts_claims=st.sampled_from([True, True, False]),
)


@given(kinds=st.lists(KINDS, max_size=5), wishes=st.lists(WISHES, max_size=9), last=WISHES)
def test_rooms_go_to_the_first_as_if_each_was_served_alone(
    kinds: list[HostKind], wishes: list[Wish], last: Wish
) -> None:
    expected = _one_by_one(kinds, [*wishes, last])
    allotment = Allotment(kinds)
    assert [bool(allotment.take(Demand(wish=wish))) for wish in wishes] == expected[:-1]
    turn = allotment.turn_of(Demand(wish=last))
    assert turn.has_come is expected[-1]
    served = sum(expected[:-1])
    for number, each in enumerate(kinds):
        if each.free and each.accepts_claims and each.meets(last):
            taken = [*kinds]
            taken[number] = kind(
                each.region, free=each.free - 1, labels=each.labels, accepts_claims=True
            )
            is_kept = each.host_ids[0] in turn.keep_free  # type: ignore[index] # a list
            assert is_kept is (sum(_one_by_one(taken, wishes)) < served)
