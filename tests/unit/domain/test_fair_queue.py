"""Users take turns; the tickets of each user come in order."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.fair_queue import FairQueue

T = TypeVar("T")


def drained(queue: FairQueue[str]) -> list[str]:
    return [next_ticket(queue) for _ in range(len(queue))]


def next_ticket(queue: FairQueue[T]) -> T:
    entry = queue.pop()
    assert entry is not None
    return entry[1]


def test_users_take_turns_whoever_has_more_waiting() -> None:
    queue: FairQueue[str] = FairQueue()
    for ticket in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(ticket[0], ticket)
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert queue.pop() is None


def test_a_user_who_was_just_served_comes_after_one_who_arrives() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.add("a", "a1")
    queue.add("a", "a2")
    assert queue.pop() == ("a", "a1")
    queue.add("b", "b1")
    assert drained(queue) == ["a2", "b1"]


def test_a_ticket_that_was_discarded_is_skipped() -> None:
    queue: FairQueue[str] = FairQueue()
    for ticket in ("a1", "a2", "b1"):
        queue.add(ticket[0], ticket)
    queue.discard("a", "a1")
    queue.discard("b", "b1")
    queue.discard("b", "b1")
    assert drained(queue) == ["a2"]


def test_users_who_may_not_go_keep_their_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for ticket in ("a1", "a2", "b1"):
        queue.add(ticket[0], ticket)
    assert queue.pop(lambda user: user != "a") == ("b", "b1")
    assert queue.pop(lambda user: user != "a") is None
    assert drained(queue) == ["a1", "a2"]


@given(st.lists(st.sampled_from("abc")))
def test_each_ticket_is_served_once_in_its_users_order_and_no_user_twice_in_a_round(
    users: list[str],
) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, user in enumerate(users):
        queue.add(user, (user, number))
    served = [next_ticket(queue) for _ in users]
    assert sorted(served, key=lambda ticket: ticket[1]) == list(enumerate_pairs(users))
    for user in "abc":
        numbers = [number for owner, number in served if owner == user]
        assert numbers == sorted(numbers)
    assert len(queue) == 0
    first_round = [user for user, _ in served[: len(set(users))]]
    assert len(set(first_round)) == len(first_round)


def enumerate_pairs(users: list[str]) -> list[tuple[str, int]]:
    return [(user, number) for number, user in enumerate(users)]
