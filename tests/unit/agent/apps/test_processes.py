"""Who belongs to whom among the processes of a sandbox."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.apps.child import Child, Fence, describe_exit
from agent.apps.commands import TAIL_CHARS, Transcript, run_command
from agent.apps.processes import Process, find_strays, in_session, parse_stat, snapshot

AGENT = 7
DEADLINE_S = 30.0


def process(pid: int, parent: int, session: int) -> Process:
    return Process(pid=pid, parent=parent, session=session)


SANDBOX = [
    process(1, 0, 1),
    process(AGENT, 1, 1),
    process(10, AGENT, 10),  # a child of ours, and its own children
    process(11, 10, 10),
    process(12, 11, 12),  # left the session, still has its parent
    process(20, AGENT, 20),  # adopted: left the session and lost its parent
    process(21, 20, 21),
    process(22, 21, 21),
    process(23, AGENT, 10),  # adopted, but still in our child's session
    process(30, 0, 30),  # came in from outside, as `docker exec` does
    process(31, 30, 30),
]


def test_adopted_processes_in_no_session_of_a_living_child_are_strays_with_all_below() -> None:
    assert find_strays(SANDBOX, AGENT, leaders={10}) == {20, 21, 22}


def test_what_is_left_of_a_child_is_in_its_session() -> None:
    assert in_session(SANDBOX, 10) == {10, 11, 23}


def test_a_name_with_brackets_and_blanks_does_not_confuse() -> None:
    line = b"42 (a) b (c) Z 7 41 40 0 -1 4194560"

    assert parse_stat(line) == Process(pid=42, parent=7, session=40, zombie=True)


def test_a_fence_holds_data_and_files_and_keeps_every_word_of_the_command(tmp_path: Path) -> None:
    lines: list[str] = []
    script = 'ulimit -d; ulimit -f; cat /proc/self/oom_score_adj; printf "%s\\n" "$@"'

    async def run() -> int:
        child = Child(
            ["/bin/sh", "-c", script, "name", "two words", "$HOME"],
            folder=str(tmp_path),
            environment={"PATH": "/usr/bin:/bin"},
            on_line=lines.append,
            fence=Fence(data_bytes=64 * 1024 * 1024, file_bytes=1024 * 1024, oom_score=900),
        )
        async with asyncio.timeout(DEADLINE_S):
            status = await asyncio.shield(child.exited)
        await child.stop()
        return status

    assert asyncio.run(run()) == 0
    assert lines == ["65536", "2048", "900", "two words", "$HOME"]


def test_a_child_that_talks_gets_what_is_written_however_much(tmp_path: Path) -> None:
    lines: list[str] = []

    async def run() -> None:
        child = Child(
            ["/bin/sh", "-c", "head -n 2 | wc -c"],
            folder=str(tmp_path),
            environment={"PATH": "/usr/bin:/bin"},
            on_line=lines.append,
            is_trusted=True,
        )
        child.write(b"x" * 300_000 + b"\n")
        child.write(b"y\n")
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.shield(child.exited)
        child.write(b"too late")
        await child.stop()

    asyncio.run(run())
    assert [line.strip() for line in lines] == ["300003"]


def test_a_child_that_resists_is_killed_with_all_that_it_began(tmp_path: Path) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()

    async def run() -> tuple[int, str]:
        child = Child(
            ["/bin/sh", "-c", 'trap "" TERM; sleep 60 & echo $$; printf part; sleep 60'],
            folder=str(tmp_path),
            environment={"PATH": "/usr/bin:/bin"},
            on_line=lines.put_nowait,
        )
        async with asyncio.timeout(DEADLINE_S):
            leader = int(await lines.get())  # while it runs
            await child.stop()
        assert describe_exit(child.exited.result()) == "was killed by SIGKILL"
        return leader, lines.get_nowait()

    before = open_files()
    leader, rest = asyncio.run(run())
    alive = [process for process in snapshot() if not process.zombie]
    assert in_session(alive, leader) == set()
    assert rest == "part"
    assert leader not in Child.leaders
    assert open_files() == before


def test_a_child_that_is_not_trusted_gets_no_input(tmp_path: Path) -> None:
    async def run() -> int:
        child = Child(["/bin/cat"], folder=str(tmp_path), environment={}, on_line=lambda _: None)
        async with asyncio.timeout(DEADLINE_S):
            status = await asyncio.shield(child.exited)
        child.write(b"x")
        await child.stop()
        return status

    assert asyncio.run(run()) == 0


def test_what_is_written_to_a_child_that_reads_nothing_is_dropped(tmp_path: Path) -> None:
    async def run() -> list[object]:
        uncaught: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: uncaught.append(context)
        )
        child = Child(
            ["/bin/sh", "-c", "exec <&-; echo closed; sleep 60"],
            folder=str(tmp_path),
            environment={"PATH": "/usr/bin:/bin"},
            on_line=lambda _: closed.set(),
            is_trusted=True,
        )
        async with asyncio.timeout(DEADLINE_S):
            await closed.wait()
            child.write(b"x" * 300_000)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            child.write(b"x")
            await child.stop()
        return uncaught

    closed = asyncio.Event()
    assert asyncio.run(run()) == []


def test_an_exit_is_told_by_its_status_or_signal() -> None:
    told = [describe_exit(status) for status in (0, 1, -15, -200)]

    assert told == [
        "exited with status 0",
        "exited with status 1",
        "was killed by SIGTERM",
        "was killed by signal 200",
    ]


def test_a_command_with_too_many_processes_is_stopped(tmp_path: Path) -> None:
    command = "for n in $(seq 200); do sleep 60 & done; wait"

    async def run() -> str:
        result = await run_command(
            ["/bin/sh", "-c", command],
            folder=str(tmp_path),
            environment={"PATH": "/usr/bin:/bin"},
            limit_s=DEADLINE_S,
        )
        return result.ended

    assert asyncio.run(run()) == "was stopped: it had more than 64 processes"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_command_without_end_is_stopped_with_what_it_left_in_the_background(
    tmp_path: Path,
) -> None:
    command = ["/bin/sh", "-c", "echo begun; sleep 60 & sleep 60"]

    async def run() -> str:
        async with asyncio.timeout(DEADLINE_S):
            result = await run_command(
                command, folder=str(tmp_path), environment={"PATH": "/usr/bin:/bin"}, limit_s=0.5
            )
        assert result.status is None
        return f"{result.ended}: {result.output}"

    assert asyncio.run(run()) == "was stopped: it didn't end within 0.5 s: begun"


def test_a_program_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    async def run() -> int | None:
        result = await run_command(
            ["nothing-of-this-name"],
            folder=str(tmp_path),
            environment={"PATH": "/usr/bin:/bin"},
            limit_s=10,
        )
        assert "not found" in result.output
        return result.status

    assert asyncio.run(run()) == 127


def test_a_long_output_keeps_its_beginning_and_its_end() -> None:
    transcript = Transcript()
    for number in range(10_000):
        transcript.add(f"line {number}")

    assert transcript.text.startswith("line 0\n")
    assert transcript.text.endswith("line 9999")
    assert "lines left out" in transcript.text
    assert len(transcript.text) < TAIL_CHARS * 2
