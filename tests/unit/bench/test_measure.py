"""What a run of `make bench` prints of its samples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bench import __main__ as command
from bench import report
from bench.groups import GROUPS
from bench.groups.peers import run_peers
from bench.measure import Limit, Row, Section, latency, percentile, targets
from bench.peers.peer import Unavailable
from bench.processes import CpuTime


def test_a_percentile_is_a_sample() -> None:
    assert [percentile([3, 1, 2, 4], share) for share in (0.0, 0.5, 0.51, 1.0)] == [1, 2, 3, 4]


def test_a_target_is_met_if_all_its_limits_hold_and_says_which_does_not() -> None:
    most, least = (
        Limit(text="p50 <= 1", figure=0.5, most=1),
        Limit(text="n >= 3", figure=2, least=3),
    )
    assert targets() == ("", None)
    assert targets(most) == ("p50 <= 1", True)
    assert targets(most, least) == ("p50 <= 1; **n >= 3** (2.00)", False)


def test_a_latency_is_compared_with_the_median_of_its_counterpart() -> None:
    row = latency("starts", [0.1, 0.2, 0.3], bare=[0.1, 0.4, 0.9], rate="2/s")
    assert row == Row(name="starts", p50="200 ms", p95="300 ms", rate="2/s", ratio="0.50")


def test_a_table_has_the_columns_that_a_row_has() -> None:
    rows = [Row(name="a", p50="1 ms", met=False, target="less"), Row(name="b", cpu="9 ms")]
    assert report.table(rows).splitlines() == [
        "| what | p50 | CPU each | target | met |",
        "| --- | ---: | ---: | --- | --- |",
        "| a | 1 ms |  | less | **NO** |",
        "| b |  | 9 ms |  |  |",
    ]
    assert report.missed({"Group": Section(rows=rows)}) == ["a"]


def test_cpu_time_is_added_and_subtracted_by_kind_of_process() -> None:
    before, after = CpuTime(by_kind={"api": 1.0}), CpuTime(by_kind={"api": 1.5, "nginx": 0.25})
    used = after.since(before)
    assert (used.total_s, used.each(5), used.parts(5)) == (0.75, "150 ms", "api 100, nginx 50")
    assert used.and_also(used).by_kind == {"api": 1.0, "nginx": 0.5}


def test_groups_are_chosen_by_name_and_run_in_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command._chosen([]) == list(GROUPS)
    assert command._chosen(["--only", "bursts,cold"]) == ["cold", "bursts"]
    with pytest.raises(SystemExit):
        command._chosen(["--only", "bursts,nonsense"])
    assert "there is no group nonsense" in capsys.readouterr().err


def test_a_peer_that_can_not_be_had_is_left_out_with_the_reason() -> None:
    @contextlib.contextmanager
    def running() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(start=lambda: 0.5)

    @contextlib.contextmanager
    def missing() -> Iterator[SimpleNamespace]:
        raise Unavailable("no network")
        yield

    with contextlib.ExitStack() as stack:
        starts, notes = run_peers(
            stack,
            [
                SimpleNamespace(NAME="Here", running=running),
                SimpleNamespace(NAME="Elsewhere", running=missing),
            ],
        )
        assert {name: start() for name, start in starts.items()} == {"Here": 0.5}
    assert notes == ["Elsewhere is left out: no network."]
