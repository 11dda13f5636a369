"""What is kept of an app's output if it is more than the log takes: what says why it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent.apps.child import Child
from agent.apps.loglines import BURST_LINES, TAIL_LINES, TRACE_LINES, Console, LogBuffer

from orchestrator.contract.wire import LOG_LINE_MAX_CHARS

DEADLINE_S = 60.0
BURST = int(BURST_LINES)
PYTHON = [
    "Traceback (most recent call last):",
    '  File "main.py", line 3, in <module>',
    "    open('rows')",
    "",
    "FileNotFoundError: [Errno 2] No such file or directory: 'rows'",
    "During handling of the above exception, another exception occurred:",
    "Traceback (most recent call last):",
    '  File "main.py", line 5, in <module>',
    "ValueError: no rows",
]
GROUP = [
    "  + Exception Group Traceback (most recent call last):",
    '  |   File "main.py", line 3, in <module>',
    "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
    "  +-+---------------- 1 ----------------",
    "    | ValueError: no rows",
    "    +------------------------------------",
    "INFO: stopped",
]
NODE = [
    "TypeError: Cannot read properties of undefined (reading 'rows')",
    "    at Object.<anonymous> (/app/src/main.js:3:9)",
    "    at Module._compile (node:internal/modules/cjs/loader:1105:14)",
]


def noise(count: int, word: str = "noise") -> list[str]:
    return [f"{word} {number}" for number in range(count)]


def taken(lines: Sequence[str], at_s: float = 1.0, now_s: float = 1.0) -> list[str]:
    """What a report takes of lines that all came at once."""
    logs = LogBuffer()
    for line in lines:
        logs.add(line, at_s)
    return list(logs.take(10_000, 10**9, now_s))


def test_of_a_burst_the_first_and_the_last_lines_are_kept_and_the_others_counted() -> None:
    assert taken(noise(1_000)) == [
        *noise(1_000)[:BURST],
        f"[{1_000 - BURST - TAIL_LINES} lines dropped: more than the log rate allows]",
        *noise(1_000)[-TAIL_LINES:],
    ]


@pytest.mark.parametrize("trace", [PYTHON, GROUP, NODE], ids=["python", "group", "node"])
def test_a_traceback_in_a_burst_is_kept_whole(trace: list[str]) -> None:
    lines = taken([*noise(BURST + 300), *trace, *noise(300, "later")])

    begin = lines.index(trace[0])
    assert lines[begin - 1] == "[300 lines dropped: more than the log rate allows]"
    assert lines[begin : begin + len(trace)] == trace
    dropped = 300 - TAIL_LINES
    assert lines[begin + len(trace)] == f"[{dropped} lines dropped: more than the log rate allows]"


def test_a_traceback_that_begins_within_the_rate_is_kept_whole() -> None:
    lines = taken([*noise(BURST - 2), *PYTHON, *noise(300, "later")])

    assert lines[BURST - 2 : BURST - 2 + len(PYTHON)] == PYTHON


def test_of_an_endless_recursion_the_beginning_and_the_error_are_kept() -> None:
    calls = [f'  File "main.py", line {number}, in f' for number in range(2_000)]
    lines = taken([*noise(BURST), PYTHON[0], *calls, "RecursionError", *noise(100, "later")])

    assert lines[BURST : BURST + 90] == [PYTHON[0], *calls[:89]]
    assert "RecursionError" in lines


def test_tracebacks_without_end_are_bounded() -> None:
    lines = taken([*noise(BURST), *(line for _ in range(1_000) for line in PYTHON)])

    assert len(lines) <= BURST + TRACE_LINES + TAIL_LINES + 3
    assert lines[-1] == "ValueError: no rows"


def test_repeats_of_a_line_are_counted() -> None:
    assert taken(["same"] * 58 + ["other", "other", "same"]) == [
        "same",
        "[the last line came 57 more times]",
        "other",
        "[the last line came 1 more times]",
        "same",
    ]


def test_repeats_that_go_on_are_counted_in_each_report() -> None:
    logs = LogBuffer()
    reports = []
    for second in range(3):
        for _ in range(1_000):
            logs.add("same", float(second))
        reports.append(logs.take(100, 10**9, float(second)))

    assert reports == [
        ("same", "[the last line came 999 more times]"),
        ("[the last line came 1000 more times]",),
        ("[the last line came 1000 more times]",),
    ]
    assert not logs


def test_in_the_long_run_no_more_lines_are_sent_than_the_rate_allows() -> None:
    logs = LogBuffer()
    count = 0
    for tick in range(10_000):
        logs.add(f"line {tick}", tick / 1000)
        if tick % 200 == 0:
            count += len(logs.take(200, 10**9, tick / 1000))
    logs.take(200, 10**9, 100.0)

    # 100 a second for 10 s, 200 at once; for each gap there is a line more.
    assert count <= 1_200 + 50


def test_the_end_of_a_burst_comes_before_what_is_printed_later() -> None:
    logs = LogBuffer()
    for line in noise(1_000):
        logs.add(line, 1.0)
    logs.add("later", 60.0)
    lines = logs.take(10_000, 10**9, 60.0)

    assert lines[-2:] == ("noise 999", "later")


def test_the_console_shows_the_last_lines_and_counts_repeats() -> None:
    console = Console()
    for line in [*noise(100), *["same"] * 58]:
        console.add(line)

    assert console.text.splitlines()[-3:] == [
        "noise 99",
        "same",
        "[the last line came 57 more times]",
    ]
    assert len(console.text) <= LOG_LINE_MAX_CHARS


@pytest.mark.parametrize("trace", [PYTHON[-3:], NODE], ids=["python", "node"])
def test_the_console_shows_the_last_traceback_also_if_much_was_printed_since(
    trace: list[str],
) -> None:
    console = Console()
    for line in [*PYTHON[:3], *noise(5), *trace, *noise(500)]:
        console.add(line)
    text = console.text

    assert text.startswith("\n".join(trace) + "\n[...]\n")
    assert text.endswith("noise 499")
    assert len(text) <= LOG_LINE_MAX_CHARS


def test_a_traceback_that_is_in_sight_is_shown_once() -> None:
    console = Console()
    for line in PYTHON:
        console.add(line)

    assert console.text == "\n".join(PYTHON)


def output_of(code: str, folder: Path) -> list[str]:
    lines: list[str] = []

    async def run() -> None:
        child = Child(
            ["/usr/bin/python3", "-c", code],
            folder=str(folder),
            environment={},
            on_line=lines.append,
        )
        async with asyncio.timeout(DEADLINE_S):
            await child.exited
        await child.stop()

    asyncio.run(run())
    return lines


def test_of_output_that_is_too_much_to_look_at_the_end_is_kept(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write(('x' * 79 + '\\n') * 20_000); sys.exit('no rows')"
    lines = output_of(code, tmp_path)

    assert lines[-1] == "no rows"
    assert any(line.endswith("bytes dropped: too much to look at]") for line in lines)
    assert len(lines) < 20_000
