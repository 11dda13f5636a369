"""Reports: order, coalescing and log lines, without a clock."""

from __future__ import annotations

import json
from typing import Any

from agent.apps.loglines import (
    PENDING_BYTES,
    Admission,
    LineSplitter,
    LogBuffer,
    OutputMeter,
    clean,
)
from agent.home.reports import HOLD_S, LOGS_INTERVAL_S, PROGRESS_INTERVAL_S, ReportQueue, Step

from orchestrator.contract.wire import (
    LOGS_MAX_BYTES,
    REPORT_MAX_BYTES,
    Failure,
    Outcome,
    Phase,
    Report,
    parse_report,
)


def queue() -> tuple[ReportQueue, LogBuffer]:
    logs = LogBuffer()
    return ReportQueue(logs), logs


def step(phase: Phase, progress: int, message: str, **more: Any) -> Step:
    return Step(phase=phase, progress=progress, message=message, **more)


def drain(reports: ReportQueue, now_s: float = 1000.0) -> list[Report]:
    """Everything that is due, as if each delivery took long enough for the next."""
    taken = []
    while report := reports.take(now_s):
        taken.append(report)
        now_s += LOGS_INTERVAL_S
    return taken


def test_changes_of_phase_stay_in_order_and_progress_within_one_coalesces() -> None:
    reports, _ = queue()
    reports.push(step(Phase.GENERATING, 31, "asking"))
    reports.push(step(Phase.GENERATING, 40, "writing a"))
    reports.push(step(Phase.GENERATING, 60, "writing b"))
    reports.push(step(Phase.DEPLOYING, 90, "starting"))
    reports.push(step(Phase.READY, 100, "running"))

    assert [(report.seq, report.phase, report.progress) for report in drain(reports)] == [
        (1, Phase.GENERATING, 60),
        (2, Phase.DEPLOYING, 90),
        (3, Phase.READY, 100),
    ]


def test_a_late_report_never_moves_progress_backwards() -> None:
    reports, _ = queue()
    reports.push(step(Phase.GENERATING, 70, "writing"))
    drain(reports)
    reports.push(step(Phase.GENERATING, 50, "asking again"))

    assert [(report.progress, report.message) for report in drain(reports, 2000.0)] == [
        (70, "asking again")
    ]


def test_a_failure_keeps_the_progress_that_was_reached() -> None:
    reports, _ = queue()
    reports.push(step(Phase.DEPLOYING, 90, "starting"))
    failure = Failure(code="app_not_ready", message="no answer")
    reports.push(step(Phase.FAILED, 0, "no answer", failure=failure))

    last = drain(reports)[-1]
    assert (last.phase, last.progress) == (Phase.FAILED, 90)
    assert last.as_json()["error"] == {
        "code": "app_not_ready",
        "message": "no answer",
        "permanent": True,
    }


def test_progress_waits_for_its_interval_but_a_new_phase_does_not() -> None:
    reports, _ = queue()
    reports.push(step(Phase.GENERATING, 31, "asking"))
    assert reports.take(10.0) is not None
    reports.push(step(Phase.GENERATING, 32, "writing"))
    assert reports.take(10.0) is None
    assert reports.due_at_s() == 10.0 + PROGRESS_INTERVAL_S
    reports.push(step(Phase.DEPLOYING, 90, "starting"))

    # The waiting progress is older than the new phase, so it goes first, and both are kept.
    assert [report.progress for report in drain(reports, 10.0 + PROGRESS_INTERVAL_S)] == [32, 90]


def test_a_new_phase_is_told_at_once() -> None:
    reports, _ = queue()
    reports.push(step(Phase.GENERATING, 31, "asking"))
    assert reports.take(10.0) is not None
    reports.push(step(Phase.DEPLOYING, 90, "starting"))

    assert reports.take(10.0) is not None


def test_a_start_that_is_over_at_once_is_one_report() -> None:
    reports, _ = queue()
    reports.push(step(Phase.DEPLOYING, 90, "starting"), 10.0)
    assert reports.take(10.0) is None
    assert reports.due_at_s() == 10.0 + HOLD_S
    reports.push(step(Phase.READY, 100, "running"), 10.05)

    assert [(report.seq, report.phase) for report in drain(reports, 10.05)] == [(1, Phase.READY)]


def test_a_start_that_takes_longer_is_told() -> None:
    reports, _ = queue()
    reports.push(step(Phase.DEPLOYING, 90, "starting"), 10.0)
    first = reports.take(10.0 + HOLD_S)
    assert first is not None
    reports.push(step(Phase.READY, 100, "running"), 11.0)

    assert [first.phase, *(report.phase for report in drain(reports, 11.0))] == [
        Phase.DEPLOYING,
        Phase.READY,
    ]


def test_a_start_that_fails_at_once_is_told_with_what_it_reached() -> None:
    reports, _ = queue()
    reports.push(step(Phase.DEPLOYING, 90, "starting"), 10.0)
    failure = Failure(code="app_not_ready", message="no answer")
    reports.push(step(Phase.FAILED, 0, "no answer", failure=failure), 10.01)

    taken = drain(reports, 10.01)
    assert [(report.phase, report.progress) for report in taken] == [
        (Phase.DEPLOYING, 90),
        (Phase.FAILED, 90),
    ]


def test_log_lines_alone_repeat_the_last_report_with_a_new_number() -> None:
    reports, logs = queue()
    reports.push(step(Phase.READY, 100, "running"))
    drain(reports, 5.0)
    logs.add("GET /", 5.1)
    assert reports.take(5.2) is None

    report = reports.take(5.0 + LOGS_INTERVAL_S)
    assert report is not None
    assert (report.seq, report.phase, report.progress, report.logs) == (
        2,
        Phase.READY,
        100,
        ("GET /",),
    )


def test_log_lines_before_the_first_report_wait_for_it() -> None:
    reports, logs = queue()
    logs.add("early", 0.0)
    assert reports.due_at_s() is None
    assert reports.take(100.0) is None


def test_a_report_carries_at_most_two_hundred_lines_and_the_rest_follows() -> None:
    reports, logs = queue()
    for number in range(300):
        logs.add(f"line {number}", number / 10)
    reports.push(step(Phase.READY, 100, "running"))

    assert [len(report.logs) for report in drain(reports)] == [200, 100]


def test_lines_are_cut_and_control_characters_removed() -> None:
    logs = LogBuffer()
    logs.add("\x1b[31mred\x00 " + "x" * 5000, 1.0)
    (line,) = logs.take(10, LOGS_MAX_BYTES, 1.0)

    assert line.startswith("[31mred x")
    assert len(line) == 2000


def test_chunks_of_a_pipe_become_lines_wherever_they_are_cut() -> None:
    splitter = LineSplitter()
    lines = [line for byte in "größe\nzwei\nrest".encode() for line in splitter.feed(bytes([byte]))]

    assert lines + splitter.finish() == ["größe", "zwei", "rest"]
    assert [*splitter.feed("ß".encode()[:1]), *splitter.finish()] == ["\ufffd"]


def test_a_line_without_end_is_handed_on_in_pieces() -> None:
    pieces = LineSplitter().feed(b"x" * 10_000)

    assert [len(piece) for piece in pieces] == [2000] * 4


def test_a_line_of_one_of_ours_is_kept_whole() -> None:
    assert LineSplitter(max_chars=20_000).feed(b"x" * 10_000 + b"\n") == ["x" * 10_000]


def test_output_is_read_then_dropped_then_left_waiting_until_the_next_second() -> None:
    meter = OutputMeter()
    chunk = bytes(64 * 1024)
    admissions = [meter.admit(chunk, 7.5) for _ in range(200)]

    assert admissions == [Admission.KEEP] * 4 + [Admission.DROP] * 124 + [Admission.WAIT] * 72
    assert meter.admit(chunk, 8.0) is Admission.KEEP


def test_the_end_of_a_change_says_what_came_of_it() -> None:
    reports, _ = queue()
    reports.push(step(Phase.READY, 100, "running", summary="Blue now. " * 900, outcome=Outcome()))

    (report,) = drain(reports)
    assert len(report.as_json()["summary"]) == 4000
    assert report.as_json()["change"] == {"ok": True}


def test_a_long_failure_is_cut_to_what_home_takes() -> None:
    failure = Failure(code="bundle_invalid", message="x" * 100_000)
    reports, _ = queue()
    reports.push(step(Phase.READY, 100, "running", outcome=Outcome(failure=failure)))
    reports.push(step(Phase.FAILED, 100, "over", failure=failure))

    for report in drain(reports):
        assert parse_report(report.as_json()) == report


def test_binary_output_is_bounded_by_bytes_and_no_report_is_too_large_for_home() -> None:
    reports, logs = queue()
    splitter = LineSplitter()
    for number in range(200):
        for line in splitter.feed(b"\xff\xf0" * 997 + b"%03d\n" % number):
            logs.add(line, number / 100)
    failure = Failure(code="app_crashed", message="\U0001f600" * 4000)
    text = "\U0001f600" * 5000
    reports.push(
        step(
            Phase.READY, 100, text, summary=text, failure=failure, outcome=Outcome(failure=failure)
        )
    )
    taken = drain(reports)

    assert all(len(json.dumps(report.as_json())) <= REPORT_MAX_BYTES for report in taken)
    assert all(len(json.dumps(report.logs)) <= LOGS_MAX_BYTES for report in taken)
    lines = [line for report in taken for line in report.logs]
    assert any("lines dropped: more than the log rate allows" in line for line in lines)
    assert "\ufffd" * 997 in lines[0]


def test_lines_that_nobody_takes_do_not_pile_up_and_the_newest_are_kept() -> None:
    logs = LogBuffer()
    for number in range(3_000):
        logs.add(f"{number} " + "x" * 1900, float(number))
    taken = logs.take(10_000, 10**9, 3_000.0)

    assert "lines dropped: nobody took them in time" in taken[0]
    assert sum(map(len, taken)) <= PENDING_BYTES
    assert taken[-1].startswith("2999 ")


def test_what_can_not_be_encoded_never_reaches_a_report() -> None:
    reports, _ = queue()
    failure = Failure(code="generation_failed", message="no\x00\ud800")
    reports.push(step(Phase.READY, 100, "a\ud800\x00b", summary="c\udfff", outcome=Outcome()))
    reports.push(step(Phase.FAILED, 100, "over", failure=failure))

    for report in drain(reports):
        assert parse_report(report.as_json()) == report
        assert "\x00" not in json.dumps(report.as_json(), ensure_ascii=False)


def test_what_is_cut_ends_in_a_mark() -> None:
    assert clean("x" * 3000) == "x" * 1994 + " [...]"
    assert clean("x" * 2000) == "x" * 2000
    assert clean("\x00" * 4000 + "x") == ""  # nobody looks at more


def test_empty_lines_without_end_are_bounded_like_long_ones() -> None:
    meter = OutputMeter()
    admissions = [meter.admit(b"\n" * 4096, 7.5) for _ in range(2)]

    assert admissions == [Admission.DROP, Admission.DROP]
