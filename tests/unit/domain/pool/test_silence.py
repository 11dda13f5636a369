"""How many silent agents are too many to be at fault themselves."""

from __future__ import annotations

import pytest

from orchestrator.domain import ids
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.silence import AgentGroup, find_silence

FIRST, SECOND = ids.new_host_id(), ids.new_host_id()


@pytest.mark.parametrize(
    ("overdue", "agents", "together"),
    [
        (0, 0, False),
        (1, 1, False),
        (2, 2, False),
        (2, 8, False),
        (3, 3, True),
        (3, 11, True),
        (3, 12, False),
        (4, 12, True),
        (250, 1000, False),
        (251, 1000, True),
    ],
)
def test_silent_together_are_three_or_more_and_over_a_quarter(
    overdue: int, agents: int, together: bool
) -> None:
    silence = find_silence(users(FIRST, agents, overdue))
    assert bool(silence.hosts) is together
    assert silence.everywhere is together


def users(host_id: HostId, count: int, overdue: int = 0) -> list[AgentGroup]:
    """So many users with one agent each on a host."""
    return [
        AgentGroup(
            host_id=host_id,
            owner=f"{host_id} {number}",
            agents=1,
            overdue=int(number < overdue),
        )
        for number in range(count)
    ]


def test_a_host_can_be_silent_while_the_pool_is_not() -> None:
    silence = find_silence([*users(FIRST, 3, overdue=3), *users(SECOND, 97)])
    assert silence.hosts == {FIRST}
    assert not silence.everywhere
    assert silence


def test_the_pool_can_be_silent_while_no_host_is() -> None:
    silence = find_silence([*users(FIRST, 4, overdue=2), *users(SECOND, 4, overdue=2)])
    assert silence.everywhere
    assert silence.hosts == frozenset()


def test_the_agents_of_one_user_count_once_on_all_hosts_together() -> None:
    attacker = [
        AgentGroup(host_id=host_id, owner="attacker", agents=5, overdue=5)
        for host_id in (FIRST, SECOND)
    ]
    silence = find_silence([*attacker, *users(FIRST, 2), *users(SECOND, 2)])
    assert not silence
    assert (silence.total.agents, silence.total.overdue) == (14, 10)


def test_nobody_at_all_is_heard_even_if_all_belong_to_one_user() -> None:
    groups = [AgentGroup(host_id=FIRST, owner="only user", agents=3, overdue=3)]
    assert find_silence(groups).everywhere
    assert not find_silence([*groups, *users(FIRST, 1)]).everywhere
