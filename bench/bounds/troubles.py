"""The parts that fail or lie: Docker, a host, the disk, Redis, the clock. Used by attacks.py."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from bench.bounds.visitors import Visitor
from bench.bounds.witnesses import containers_by_session
from bench.bounds.world import World
from bench.fleet import NOBODY
from tests import fleet as machines
from tests.e2e import hosts
from tests.e2e.installation import Installation
from tests.e2e.test_hanging import hanging_shim
from tests.fleet import Vps

_ENDED_S = 120
_JUMP_S = 180
_GREETINGS = (
    "echo Welcome to this machine",
    "echo 1000",
    "echo 10.0.0.1; echo hello",
    "echo '{\"a\": 1}'; printf 'no end of line'",
    "head -c 2000000 /dev/zero | tr '\\0' x",
)


@contextlib.contextmanager
def hanging_removal(world: World, seconds: float) -> Iterator[Callable[[], str]]:
    """The process between Docker and a container is stopped, then its session is deleted."""
    owner = Visitor(world.spawn)
    session_id = owner.ready_app(template="notes")["session_id"]
    with hanging_shim(containers_by_session(world.spawn)[session_id]):
        owner.end(session_id)
        yield lambda: f"its session: {world.spawn.status(session_id)['status']}"
    world.spawn.wait_for(session_id, "destroyed", within_s=_ENDED_S)


@contextlib.contextmanager
def greeting_host(world: World, seconds: float) -> Iterator[Callable[[], str]]:
    """A host of the pool prints something before each command, and each time another thing."""
    spawn, project = world.spawn, f"spawn-bounds-{os.getpid()}"
    states: list[str] = []
    stop = threading.Event()
    try:
        vps = _only_vps(project)
        hosts.add(spawn, _authorized(spawn, vps))
        hosts.wait_for_state(spawn, vps.name, "up")

        def greet() -> None:
            turn = 0
            while not stop.is_set():
                vps.exec("sh", "-c", "cat > /root/.bashrc", stdin=_GREETINGS[turn % 5] + "\n")
                vps.exec("vps", "stop-sshd")
                vps.exec("vps", "start-sshd")
                stop.wait(seconds / len(_GREETINGS))
                host = hosts.get(spawn, vps.name)
                # Lost, it was out of reach for 15 s: by a greeting without end, or because its sshd
                # took so long to start again.
                states.append(f"{host['state']} {host['reason'][:80]}".rstrip())
                turn += 1

        greeting = threading.Thread(target=greet)
        greeting.start()
        try:
            yield lambda: "the host: " + ", ".join(states)
        finally:
            stop.set()
            greeting.join()
        spawn.spawnctl("hosts", "remove", vps.name, "--force")
    finally:
        machines.remove(project)


@contextlib.contextmanager
def full_disk(world: World, seconds: float) -> Iterator[Callable[[], str]]:
    """The file system of the state folder has not a block left, whatever is freed meanwhile."""
    assert world.disk is not None
    disk, stop = world.disk, threading.Event()

    def keep_full() -> None:
        while not stop.is_set():
            disk.fill()
            stop.wait(1)

    filling = threading.Thread(target=keep_full)
    before = _processes(world.spawn)
    filling.start()

    def tell() -> str:
        now = _processes(world.spawn)
        ended = [before[pid] for pid in before if pid not in now]
        return f"processes that ended: {', '.join(ended) or 'none'}"

    try:
        yield tell
    finally:
        stop.set()
        filling.join()
        disk.free()


@contextlib.contextmanager
def black_hole(world: World, seconds: float) -> Iterator[Callable[[], str]]:
    """Every packet from and to Redis is dropped: no connection is refused, and none is closed."""
    assert world.redis is not None
    with world.redis.behind_a_black_hole():
        yield lambda: ""


@contextlib.contextmanager
def clock_jump(world: World, seconds: float) -> Iterator[Callable[[], str]]:
    """The wall clock of the control plane jumps, and stays there."""
    assert world.clock is not None
    world.clock.set_to(_JUMP_S)
    yield lambda: ""


def _processes(spawn: Installation) -> dict[int, str]:
    """The lasting processes of the control plane, by pid."""
    names = ("entrypoints.daemon", "api.server", "agents.server", "jobs", "nginx: master", "redis")
    return {pid: name for name in names for pid in spawn.pids(name)}


def _only_vps(project: str) -> Vps:
    output = machines.script(
        "up", "--project", project, "--count", "1", "--authorized-key", "-", stdin=NOBODY
    )
    name, address = output.splitlines()[-1].split()
    vps = Vps(name=name, address=address, container=f"{project}-{name}-1")
    vps.await_ready()
    return vps


def _authorized(spawn: Installation, vps: Vps) -> Vps:
    lines = spawn.spawnctl("hosts", "key").stdout.splitlines()
    vps.authorize(next(line for line in lines if "ssh-" in line))
    return vps
