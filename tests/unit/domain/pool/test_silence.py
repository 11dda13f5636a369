"""How many silent agents are too many to be at fault themselves."""

from __future__ import annotations

import pytest

from orchestrator.domain import ids
from orchestrator.domain.pool.silence import AgentCounts, find_silence

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
    counts = AgentCounts(agents=agents, overdue=overdue)
    assert counts.are_silent_together is together
    assert bool(find_silence({FIRST: counts})) is together


def test_a_host_can_be_silent_while_the_pool_is_not() -> None:
    silence = find_silence(
        {FIRST: AgentCounts(agents=3, overdue=3), SECOND: AgentCounts(agents=97)}
    )
    assert silence.hosts == {FIRST}
    assert not silence.everywhere
    assert silence


def test_the_pool_can_be_silent_while_no_host_is() -> None:
    two_of_four = AgentCounts(agents=4, overdue=2)
    silence = find_silence({FIRST: two_of_four, SECOND: two_of_four})
    assert silence.everywhere
    assert silence.hosts == frozenset()
