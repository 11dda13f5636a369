"""How fast one sandbox may ask the agents' process, and send it bundles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors, ids
from orchestrator.entrypoints.api.agents import limits
from orchestrator.entrypoints.api.agents.limits import SenderLimits as Limits
from orchestrator.entrypoints.api.agents.limits import Senders
from orchestrator.entrypoints.api.bounds.layered_rates import Layers
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.services.rates import Rate
from tests.fakes.samples import USER

LIMITS = Limits(
    request_rate=replace(limits.REQUESTS, own=Rate(per_s=2, burst=3)),
    upload_rate=replace(limits.UPLOADS, own=Rate(per_s=0.5, burst=2)),
)


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
    bounds = Limits(body_bytes=100, all_body_bytes=150, small_body_bytes=10)
    senders = Senders(GatewayMetrics(), lambda: 100.0, bounds)
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


def test_the_bodies_of_a_user_leave_room_for_those_of_others() -> None:
    bounds = Limits(body_bytes=100, user_body_bytes=150, all_body_bytes=10_000, small_body_bytes=10)
    senders = Senders(GatewayMetrics(), lambda: 100.0, bounds)
    first, second, other = (ids.new_sandbox_id() for _ in range(3))
    for sandbox_id in (first, second):
        senders.set_owner(sandbox_id, USER)
    with senders.body(first) as of_first, senders.body(second) as of_second:
        of_first(90)
        of_second(60)
        with pytest.raises(errors.LimitReached, match="your apps send too many bytes"):
            of_second(1)
        with senders.body(other) as of_other:
            of_other(100)
    assert not senders._bodies
    assert not senders._user_bodies


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


def test_a_users_sandboxes_ask_no_more_together_than_the_user_may() -> None:
    bounds = Limits(
        request_rate=Layers(
            own=Rate(per_s=50, burst=100),
            floor=Rate(per_s=1, burst=2),
            user=Rate(per_s=1, burst=10),
            total=Rate(per_s=500, burst=500),
        )
    )
    metrics = GatewayMetrics()
    senders = Senders(metrics, lambda: 100.0, bounds)
    user, stranger = ids.new_user_id(), ids.new_sandbox_id()
    sandboxes = [ids.new_sandbox_id() for _ in range(5)]

    def ask(sandbox_id: ids.SandboxId) -> bool:
        try:
            with senders.request(sandbox_id):
                return True
        except errors.LimitReached:
            return False

    for sandbox_id in sandboxes:
        senders.set_owner(sandbox_id, user)
    answers = [ask(sandbox_id) for _ in range(20) for sandbox_id in sandboxes]
    assert sum(answers) == 11 + 5 * 3
    assert ask(stranger)
    refusals = metrics.registry.get_sample_value(
        "spawn_agent_refusals_total", {"reason": "shared_rate"}
    )
    assert refusals == len(answers) - sum(answers)


def test_a_users_sandboxes_send_no_more_bytes_of_reports_than_the_user_may() -> None:
    layers = Layers(
        own=Rate(per_s=100, burst=1000),
        floor=Rate(per_s=1, burst=10),
        user=Rate(per_s=10, burst=100),
        total=Rate(per_s=1000, burst=10_000),
    )
    metrics = GatewayMetrics()
    senders = Senders(metrics, lambda: 100.0, Limits(report_bytes=layers))
    user, other = ids.new_user_id(), ids.new_sandbox_id()
    first, second, third = (ids.new_sandbox_id() for _ in range(3))
    for sandbox_id in (first, second, third):
        senders.set_owner(sandbox_id, user)
    for sandbox_id in (first, second):
        senders.report(sandbox_id)(60)  # of its floor
        senders.report(sandbox_id)(60)  # of its user's
    with pytest.raises(errors.LimitReached, match="your apps together") as caught:
        senders.report(first)
    assert caught.value.retry_after_s == 2
    senders.report(third)(60)
    senders.set_owner(other, ids.new_user_id())
    for _ in range(2):
        senders.report(other)(60)
