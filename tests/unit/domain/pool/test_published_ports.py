"""Which ports are looked at, and what follows from many looks together."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain import ids
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.published_ports import (
    PortAnswer,
    PortRecord,
    PublishedPort,
    find_due,
    judge,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPEN, REFUSED, SILENT, _ = PortAnswer


def record(
    *answers: PortAnswer, host: str = "h1", age_s: float = 0, is_warm: bool = False
) -> PortRecord:
    """A port of a user of its own, after these looks. The last one was so long ago."""
    sandbox_id = ids.new_sandbox_id()
    port = PublishedPort(
        sandbox_id=sandbox_id,
        host_id=HostId(host),
        owner=sandbox_id,
        is_warm=is_warm,
        address="10.0.0.1",
        port=1,
        up_since=NOW - timedelta(days=1),
    )
    looks = PortRecord(port=port)
    for number, answer in enumerate(answers, 1 - len(answers)):
        looks = looks.after(answer, NOW + timedelta(seconds=2 * number - age_s))
    return looks


def dead(records: Iterable[PortRecord]) -> int:
    return len(judge(records, (), {}, NOW).dead)


@pytest.mark.parametrize(
    ("looks", "is_due"),
    [
        (record(), True),
        (record(OPEN, age_s=4.9), False),
        (record(OPEN, age_s=5), True),
        (record(REFUSED), True),
        (record(REFUSED, OPEN), False),
    ],
)
def test_a_port_is_looked_at_every_5_s_and_at_once_if_it_fails(
    looks: PortRecord, is_due: bool
) -> None:
    assert bool(find_due([looks], NOW)) == is_due


def test_the_larger_the_pool_the_less_often_is_each_port_looked_at() -> None:
    many = [record(OPEN, age_s=age_s) for age_s in (9.9, 11, 10)] + [record(OPEN)] * 1997
    due = find_due([*many, record()], NOW)

    assert [looks.looked_at and (NOW - looks.looked_at).total_seconds() for looks in due] == [
        None,
        11,
    ]


def test_a_port_that_refuses_three_times_is_dead_if_others_were_looked_at_since() -> None:
    well = record(OPEN)
    assert dead([well, record(REFUSED, REFUSED, REFUSED)]) == 1
    assert dead([well, record(REFUSED, REFUSED)]) == 0
    assert dead([well, record(REFUSED, SILENT, REFUSED)]) == 0
    assert dead([well, record(REFUSED, REFUSED, REFUSED), record(OPEN, age_s=10)]) == 0


def test_nothing_is_dead_while_ports_of_many_hosts_fail() -> None:
    refused = (REFUSED,) * 3
    elsewhere = [record(*refused, host=f"h{number}") for number in range(2, 5)]
    here = [record(*refused), *(record(OPEN) for _ in range(9))]

    assert dead(here) == 1
    judgement = judge([*here, *elsewhere], (), {}, NOW)
    assert not judgement.dead
    assert set(judgement.blamed) == {"h2", "h3", "h4"}


def test_a_host_is_to_blame_from_the_third_look_on() -> None:
    for looks in (1, 2):
        assert not judge([record(*[SILENT] * looks)], (), {}, NOW).blamed
        assert not judge([record(*[REFUSED] * looks) for _ in range(4)], (), {}, NOW).blamed

    assert judge([record(*[SILENT] * 3)], (), {}, NOW).blamed
    assert judge([record(*[REFUSED] * 3) for _ in range(4)], (), {}, NOW).blamed


def test_a_host_whose_only_port_refuses_is_to_blame_if_no_user_had_a_hand_in_it() -> None:
    refused = (REFUSED,) * 3

    assert not judge([record(*refused)], (), {}, NOW).blamed
    assert not judge([record(OPEN, *refused, is_warm=True)], (), {}, NOW).blamed
    reason = judge([record(*refused, is_warm=True)], (), {}, NOW).blamed[HostId("h1")]
    assert reason.startswith("1 of 1 published ports refuse connections at 10.0.0.1;")
