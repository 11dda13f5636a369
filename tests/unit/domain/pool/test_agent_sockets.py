"""How often a sandbox may connect."""

from __future__ import annotations

import pytest

from orchestrator.domain.pool.agent_sockets import CONNECTIONS_PER_S, ConnectionRate


def test_a_sandbox_may_connect_so_often_in_a_second_and_again_in_the_next() -> None:
    rate = ConnectionRate()
    assert [rate.take(10.0) for _ in range(CONNECTIONS_PER_S)] == [0.0] * CONNECTIONS_PER_S
    assert rate.take(10.25) == pytest.approx(0.75)
    assert [rate.take(11.0) for _ in range(CONNECTIONS_PER_S)] == [0.0] * CONNECTIONS_PER_S
    assert rate.take(11.5) == pytest.approx(0.5)
