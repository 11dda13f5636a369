"""What each tier may have, and which queue serves a session."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.domain.people.access import LIMITS, TTL_MIN_S
from orchestrator.domain.sessions.priority import Queue, queue_for, rank_of
from orchestrator.domain.sessions.session import SessionState, Tier, Wanted
from orchestrator.services.deps import Policy
from tests.fakes import samples

BY_GENEROSITY = [Tier.FREE, Tier.PRO, Tier.OPERATOR]


def test_every_tier_has_limits_and_a_rank() -> None:
    assert set(LIMITS) == set(Tier)


@pytest.mark.parametrize(("less", "more"), tuple(itertools.pairwise(BY_GENEROSITY)))
def test_who_pays_more_may_have_more_and_comes_first(less: Tier, more: Tier) -> None:
    assert LIMITS[less].ttl_max_s < LIMITS[more].ttl_max_s
    assert LIMITS[less].sessions_max < LIMITS[more].sessions_max
    assert rank_of(samples.session(tier=less)) > rank_of(samples.session(tier=more))


def test_what_everybody_gets_unasked_is_within_everybodys_limits() -> None:
    default_s = Policy().ttl_default_s
    assert all(TTL_MIN_S <= default_s <= limits.ttl_max_s for limits in LIMITS.values())


@pytest.mark.parametrize(
    ("tier", "queue"),
    [(Tier.FREE, Queue.NORMAL), (Tier.PRO, Queue.HIGH), (Tier.OPERATOR, Queue.HIGH)],
)
def test_a_new_session_waits_in_the_queue_of_its_tier(tier: Tier, queue: Queue) -> None:
    assert queue_for(samples.session(tier=tier)) is queue


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("state", sorted(set(SessionState) - {SessionState.QUEUED}))
def test_what_has_begun_is_finished_first(state: SessionState, tier: Tier) -> None:
    assert queue_for(samples.session(state=state, tier=tier)) is Queue.CRITICAL


@pytest.mark.parametrize("tier", Tier)
def test_what_is_to_end_frees_room_first(tier: Tier) -> None:
    assert queue_for(samples.session(tier=tier, wanted=Wanted.GONE)) is Queue.CRITICAL


def test_workers_empty_the_queues_in_the_order_of_their_names() -> None:
    assert list(Queue) == [Queue.CRITICAL, Queue.HIGH, Queue.NORMAL, Queue.LOW]
