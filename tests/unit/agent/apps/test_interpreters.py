"""Interpreters that wait for an app: when there is one, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from agent.apps.app import App, environment
from agent.apps.child import Child
from agent.apps.interpreters import Interpreters, Room, available_part, idle_part
from agent.serving.site import Slot

from orchestrator.contract.manifest import read_manifest

T = TypeVar("T")
DEADLINE_S = 30.0
LAUNCHER = Path(__file__).parents[4] / "runtime-image" / "interpreters" / "python.py"
COMMANDS = {"python": (sys.executable, str(LAUNCHER))}
PLENTY = Room(memory=0.9, processors=1.0)
SERVER = """
import http.server, os, sys  # but not jinja2, whose name is enough
print("I am", os.getpid(), sys.argv, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Sandbox:
    """Interpreters on a host whose room the test sets, and an app for them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        self.slot = Slot(folder=str(folder / "src"), port=port)
        self.room = PLENTY
        self.looks = 0
        self.lines: list[str] = []
        self.interpreters = Interpreters(environment, look=self._look, commands=dict(COMMANDS))

    def _look(self) -> Room:
        self.looks += 1
        return self.room

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        keeping = asyncio.create_task(self.interpreters.keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})

    async def waiting(self) -> int:
        """The pid of the interpreter, once there is one."""
        await until(lambda: Child.leaders)
        (pid,) = Child.leaders
        return pid

    async def start(self, *start: str) -> str:
        """Start the app by this command; return what it says about itself."""
        Path(self.slot.folder).mkdir(exist_ok=True)
        (Path(self.slot.folder) / "main.py").write_text(SERVER)
        manifest = read_manifest(json.dumps({"kind": "python", "start": start}).encode())
        app = App(
            manifest,
            self.slot,
            add_log=self.lines.append,
            start_timeout_s=DEADLINE_S,
            interpreters=self.interpreters,
        )
        problem = await app.start()
        await until(lambda: self.lines)
        await app.stop()
        assert not problem
        return self.lines.pop(0)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE_S):
            return await coroutine

    return asyncio.run(bounded())


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    async def make() -> Sandbox:
        return Sandbox(tmp_path)

    return asyncio.run(make())


def test_an_app_is_the_interpreter_that_waited_for_it(sandbox: Sandbox) -> None:
    async def story() -> tuple[int, str]:
        sandbox.interpreters.wait_for(sandbox.slot)
        async with sandbox.kept():
            pid = await sandbox.waiting()
            return pid, await sandbox.start("python3", "main.py", "$PORT")

    pid, line = run(story())

    assert line == f"I am {pid} ['main.py', '{sandbox.slot.port}']"


def test_an_interpreter_that_died_is_replaced_by_a_plain_start(sandbox: Sandbox) -> None:
    async def story() -> tuple[int, str]:
        sandbox.interpreters.wait_for(sandbox.slot)
        async with sandbox.kept():
            pid = await sandbox.waiting()
            os.kill(pid, 9)
            await until(lambda: pid not in Child.leaders)
            return pid, await sandbox.start("python3", "main.py")

    pid, line = run(story())

    assert line.endswith("['main.py']")
    assert str(pid) not in line


@pytest.mark.parametrize(
    "start", [("node", "-r", "x", "main.py"), ("python", "-S", "main.py"), ("python", "main.py")]
)
def test_only_a_command_that_fits_takes_an_interpreter_of_its_slot(
    sandbox: Sandbox, start: tuple[str, ...]
) -> None:
    async def story() -> bool:
        other = Slot(folder=sandbox.slot.folder, port=1)
        sandbox.interpreters.wait_for(other if start == ("python", "main.py") else sandbox.slot)
        async with sandbox.kept():
            await sandbox.waiting()
            child = sandbox.interpreters.take(start, sandbox.slot, sandbox.lines.append)
            if child is not None:
                await child.stop()
            return child is not None

    # It executes what it can't be.
    assert run(story()) == (start == ("python", "-S", "main.py"))


@pytest.mark.parametrize(
    "room", [Room(memory=0.24, processors=1.0), Room(memory=1.0, processors=0.5)]
)
def test_none_is_started_while_the_host_is_short_of_something(sandbox: Sandbox, room: Room) -> None:
    async def story() -> set[int]:
        sandbox.room = room
        sandbox.interpreters.wait_for(sandbox.slot)
        async with sandbox.kept():
            await until(lambda: sandbox.looks >= 2)
            before = set(Child.leaders)
            sandbox.room = PLENTY
            await sandbox.waiting()
        return before

    assert run(story()) == set()
    assert not Child.leaders


@pytest.mark.parametrize("reason", ["memory", "dismissed", "another slot"])
def test_one_that_is_not_wanted_any_more_ends(sandbox: Sandbox, reason: str) -> None:
    async def story() -> None:
        sandbox.interpreters.wait_for(sandbox.slot)
        async with sandbox.kept():
            pid = await sandbox.waiting()
            sandbox.room = Room(memory=0.14, processors=1.0)
            if reason == "dismissed":
                sandbox.interpreters.dismiss()
            elif reason == "another slot":
                sandbox.interpreters.wait_for(Slot(folder=sandbox.slot.folder, port=1))
            await until(lambda: pid not in Child.leaders)

    run(story())


def test_one_that_does_not_stay_is_not_started_again(tmp_path: Path) -> None:
    async def story() -> tuple[int, int]:
        sandbox = Sandbox(tmp_path)
        starts = tmp_path / "starts"
        command = ("sh", "-c", f"echo >>{starts}")
        sandbox.interpreters = Interpreters(
            environment, look=sandbox._look, commands={"python": command}
        )
        sandbox.interpreters.wait_for(sandbox.slot)
        async with sandbox.kept():
            await until(lambda: starts.exists() and not Child.leaders)
            looks = sandbox.looks
            await until(lambda: sandbox.looks >= looks + 2)
        return looks, len(starts.read_text())

    assert run(story())[1] == 1


def test_the_room_of_a_host_is_read_from_proc() -> None:
    meminfo = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:   250 kB\nHugePages_Total: 0\n"
    before = "cpu  100 0 100 1000 0 0 0 0 7 7\ncpu0 1 1 1 1\n"
    after = "cpu  110 0 105 1070 10 5 0 0 7 7\ncpu0 1 1 1 1\n"

    assert available_part(meminfo) == 0.25
    assert idle_part(before, after) == 0.8


@pytest.mark.parametrize("text", ["", "cpu\n", "intr 5\n", "MemTotal: 0 kB\n", "cpu 0 0 0 0\n"])
def test_where_proc_says_nothing_there_is_no_room(text: str) -> None:
    assert available_part(text) == 0.0
    assert idle_part(text, text) == 0.0
