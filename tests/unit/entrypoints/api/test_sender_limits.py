"""How fast one sandbox may ask the agents' process, and send it bundles."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors, ids
from orchestrator.entrypoints.api.agents.limits import SenderLimits as Limits
from orchestrator.entrypoints.api.agents.limits import Senders
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics

LIMITS = Limits(rate_per_s=2, burst=3, upload_per_s=0.5, upload_burst=2)


class Sandbox:
    """Asks at a time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.metrics = GatewayMetrics()
        self.senders = Senders(self.metrics, lambda: self.now_s, LIMITS)
        self.id = ids.new_sandbox_id()

    def ask(self) -> None:
        with self.senders.request(self.id):
            pass

    def upload(self) -> None:
        with self.senders.upload(self.id):
            pass


def test_a_sandbox_that_asks_too_fast_is_told_when_it_may_ask_again() -> None:
    sandbox = Sandbox()
    for _ in range(3):
        sandbox.ask()
    with pytest.raises(errors.LimitReached, match="2 requests a second") as caught:
        sandbox.ask()
    assert caught.value.retry_after_s == 0.5
    sandbox.now_s += 0.5
    sandbox.ask()


def test_a_sandbox_holds_so_many_bytes_and_nothing_is_kept_of_them() -> None:
    senders = Senders(GatewayMetrics(), lambda: 100.0, Limits(body_bytes=100))
    sandbox_id = ids.new_sandbox_id()
    for _ in range(2):
        with (
            senders.request(sandbox_id),
            senders.body(sandbox_id) as first,
            senders.body(sandbox_id) as second,
        ):
            first(60)
            second(40)
            with pytest.raises(errors.LimitReached, match="too many bytes at a time"):
                second(1)

    assert not senders._bodies
    assert not senders._requests._held


def test_bodies_of_others_leave_room_for_a_small_one() -> None:
    limits = Limits(body_bytes=100, all_body_bytes=150, small_body_bytes=10)
    senders = Senders(GatewayMetrics(), lambda: 100.0, limits)
    first, second, third = (ids.new_sandbox_id() for _ in range(3))
    with senders.body(first) as of_first, senders.body(second) as of_second:
        of_first(90)
        of_second(60)
        with senders.body(third) as of_third:
            of_third(10)
            with pytest.raises(errors.LimitReached, match="too many bytes are on their way"):
                of_third(1)
    with senders.body(third) as of_third:
        of_third(100)


def test_uploads_are_rarer_than_requests_and_have_a_rate_of_their_own() -> None:
    sandbox = Sandbox()
    for _ in range(2):
        sandbox.upload()
    with pytest.raises(errors.LimitReached, match="a bundle every 2 s") as caught:
        sandbox.upload()
    assert caught.value.retry_after_s == 2
    sandbox.ask()
    with sandbox.senders.transfer(sandbox.id):
        pass
    refusals = sandbox.metrics.registry.get_sample_value(
        "spawn_agent_refusals_total", {"reason": "upload_rate"}
    )
    assert refusals == 1
