"""Real processes under the supervisor's watch. Its time is an argument: nobody waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.entrypoints.children import Child
from orchestrator.entrypoints.liveness import heartbeats, pings
from orchestrator.entrypoints.liveness.heartbeats import HeartbeatSocket
from orchestrator.entrypoints.liveness.pings import OpenPing, Ping
from orchestrator.entrypoints.liveness.processes import Hung, ProcessWatch

ROOT = Path(__file__).parents[4]
LIMIT_S = 20.0
DEADLINE_S = 30

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
BEATER = """
from orchestrator.entrypoints.liveness import heartbeats
heartbeats.beat_forever(lambda: True)
print("beats", flush=True)
input()
"""
PARENT = """
import os, signal
from orchestrator.entrypoints.liveness import heartbeats
child = os.fork()
heartbeats.beat_forever(lambda: True)
if child:
    print(child, flush=True)
signal.pause()
"""


@dataclass
class Watching:
    """A ProcessWatch, and the time that it is told."""

    watch: ProcessWatch
    heartbeats: HeartbeatSocket
    now: float = 1000.0
    hung: list[Hung] = field(default_factory=list)  # all that hung so far

    def pass_by(self, seconds: float) -> Sequence[Hung]:
        """Let so much time pass, with a look each second. Returns what hung meanwhile."""
        end = self.now + seconds
        hung: list[Hung] = []
        while self.now < end:
            self.now += 1
            hung += self.watch.look(self.now)
        self.hung += hung
        return hung

    def pass_by_and_hear(self, name: str, seconds: float) -> None:
        """Let so much time pass, and wait until that child has given a sign since."""
        before = self.now
        self.pass_by(seconds)
        self.until_heard(lambda: self.watch._watched[name].sign_at > before)

    def until_heard(self, watched: Callable[[], bool]) -> None:
        """Look, without letting time pass, until a sign has come."""
        deadline = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while not watched():
            assert time.monotonic() < deadline, "no sign came"
            self.hung += self.watch.look(self.now)
            pause.wait(0.01)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    beats = HeartbeatSocket(tmp_path / "heartbeat.sock")
    watch = ProcessWatch(beats, LIMIT_S)
    yield Watching(watch, beats)
    watch.close()


@contextlib.contextmanager
def running(code: str, watching: Watching) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python process, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, heartbeats.VARIABLE: str(watching.heartbeats.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)
        process.stdout.close()
        process.stdin.close()


def child(name: str, ping: Ping | None = None, *, members_beat: bool = False) -> Child:
    return Child(
        name=name,
        argv=[],
        ready=lambda: True,
        ready_within_s=0,
        stop_within_s=0,
        ping=ping,
        members_beat=members_beat,
    )


def test_a_server_that_answers_is_well_and_a_stopped_one_hangs(watching: Watching) -> None:
    with running(SERVER, watching) as (process, port):
        ping = pings.http(("127.0.0.1", int(port)), "/health")
        watching.watch.begin(child("api", ping), process.pid, watching.now)
        for _ in range(5):
            watching.pass_by_and_hear("api", 3)
        process.send_signal(signal.SIGSTOP)
        watching.pass_by(1)
        assert watching.pass_by(LIMIT_S - 5) == []
        (hung,) = watching.pass_by(10)
        assert (hung.name, hung.pid, hung.is_child) == ("api", process.pid, True)
        process.send_signal(signal.SIGCONT)
        watching.pass_by_and_hear("api", 1)
        assert watching.watch.look(watching.now) == []


def test_a_process_with_a_heart_is_well_until_it_stops(watching: Watching) -> None:
    with running(BEATER, watching) as (process, _):
        watching.watch.begin(child("daemon"), process.pid, watching.now)
        watching.pass_by_and_hear("daemon", 2)
        process.send_signal(signal.SIGSTOP)
        watching.pass_by(1)
        (hung,) = watching.pass_by(LIMIT_S + 2)
        assert (hung.name, hung.is_child) == ("daemon", True)


def test_only_the_process_of_a_pool_that_hangs_is_named(watching: Watching) -> None:
    with running(PARENT, watching) as (process, line):
        pool, worker = process.pid, int(line)
        watching.watch.begin(child("worker", members_beat=True), pool, watching.now)
        watching.until_heard(lambda: worker in watching.watch._watched["worker"].members)
        os.kill(worker, signal.SIGSTOP)
        for _ in range(12):
            watching.pass_by_and_hear("worker", 2)
        (hung,) = watching.hung
        assert (hung.name, hung.pid, hung.is_child) == ("worker", worker, False)


def test_each_hang_doubles_the_patience_because_the_machine_may_just_be_too_busy(
    watching: Watching,
) -> None:
    with running(SERVER, watching) as (process, port):
        ping = pings.http(("127.0.0.1", int(port)), "/health")
        process.send_signal(signal.SIGSTOP)
        for times in (1, 2, 4, 8, 8):
            watching.watch.begin(child("api", ping), process.pid, watching.now)
            watching.watch.look(watching.now)
            assert watching.pass_by(times * LIMIT_S) == []
            assert len(watching.pass_by(2)) == 1


def test_a_sleep_of_the_whole_machine_is_nobodys_fault(watching: Watching) -> None:
    with running(SERVER, watching) as (process, port):
        ping = pings.http(("127.0.0.1", int(port)), "/health")
        watching.watch.begin(child("api", ping), process.pid, watching.now)
        process.send_signal(signal.SIGSTOP)
        watching.pass_by(5)
        watching.now += 8 * 3600
        assert watching.watch.look(watching.now) == []
        assert watching.pass_by(LIMIT_S - 1) == [], "it gets as long as after any other sign"
        assert len(watching.pass_by(2)) == 1


def test_a_listener_that_accepts_and_stays_silent_has_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ping = OpenPing(pings.http(listener.getsockname(), "/health"))
        assert not any(ping.advance(now) for now in range(60))
        ping.close()


def test_a_listener_whose_queue_is_full_has_not_answered(tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        ping = OpenPing(pings.redis(path))
        assert not any(ping.advance(now) for now in range(60))
        ping.close()


def test_nobody_else_can_give_a_sign_for_a_process(watching: Watching) -> None:
    """The kernel says who sent a heartbeat. Other datagrams are none."""
    with running(BEATER, watching) as (process, _):
        watching.watch.begin(child("daemon"), process.pid, watching.now)
        process.send_signal(signal.SIGSTOP)
        watching.watch.look(watching.now)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            for _ in range(int(LIMIT_S) + 2):
                sender.sendto(b"WATCHDOG=1", str(watching.heartbeats.path))
                sender.sendto(b"READY=1", str(watching.heartbeats.path))
                watching.pass_by(1)
        assert [hung.name for hung in watching.hung] == ["daemon"]
