"""The control plane's own disk is broken: no app notices, and sessions go on once it is well."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.chaos import leftovers
from tests.chaos.people import Neighbour, settle_neighbour
from tests.disks import SmallDisk, loop_disk
from tests.e2e.installation import Installation, installed, until
from tests.fakes.llm.messages_api import MessagesApi

_SIZE_MIB = 192
_NOTICED_S = 60
_TIMES_SAID = 20  # not every query of a database reads its disk


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An installation whose state folder lies on a disk of its own."""

    spawn: Installation
    disk: SmallDisk
    neighbour: Neighbour
    processes: Counter[str]  # at rest


@contextlib.contextmanager
def staged() -> Iterator[Scene]:
    # Not in pytest's temporary folder: the proxy's workers can't read that one.
    folder = Path(tempfile.mkdtemp(prefix="spawn-disk-"))
    folder.chmod(0o711)
    try:
        with (
            loop_disk(folder, size_mib=_SIZE_MIB) as disk,
            MessagesApi() as model,
            installed(
                SPAWN_STATE_DIR=str(disk.folder / "s"),
                SPAWN_DISK_FLOOR_MB="32",
                SPAWN_WARM_TARGET="1",
                ANTHROPIC_API_KEY="not-a-key",
                ANTHROPIC_BASE_URL=model.url,
            ) as spawn,
        ):
            neighbour = settle_neighbour(spawn, model)
            processes = leftovers.count_processes(spawn)
            yield Scene(spawn=spawn, disk=disk, neighbour=neighbour, processes=processes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    with staged() as scene:
        yield scene


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    """All is well before the test, and has to be afterwards."""
    yield stage
    leftovers.await_rest(stage.spawn, [stage.neighbour.session_id], stage.processes)
    stage.neighbour.check_app()


def test_apps_go_on_and_newcomers_wait_while_the_disk_is_full(scene: Scene) -> None:
    neighbour = scene.neighbour
    with ThreadPoolExecutor(1) as asker:
        with scene.disk.full():
            asked = asker.submit(neighbour.user.ask)
            until(lambda: is_refused(scene), _NOTICED_S, "a refusal")
            neighbour.check_app()
            assert scene.spawn.call("GET", "/").status == 200
            assert not asked.done()
        session_id = asked.result()
    neighbour.user.await_app(session_id)
    neighbour.user.end(session_id)


def test_apps_go_on_and_newcomers_wait_while_the_disk_hangs(scene: Scene) -> None:
    neighbour = scene.neighbour
    with ThreadPoolExecutor(1) as asker:
        with scene.disk.frozen():
            asked = asker.submit(neighbour.user.ask)
            until(lambda: is_stuck(scene), _NOTICED_S, "a process to wait for the disk")
            neighbour.check_app()
            assert not asked.done()
        session_id = asked.result()
    neighbour.user.await_app(session_id)
    neighbour.user.end(session_id)


@pytest.mark.chaos
def test_apps_go_on_while_the_disk_takes_no_writes_and_are_back_once_it_is_repaired() -> None:
    with staged() as scene:
        spawn, neighbour = scene.spawn, scene.neighbour
        scene.disk.fail()
        response = spawn.call("POST", "/api/sessions", {"template": "todo"}, key=neighbour.user.key)
        assert response.status == 503, (response.status, response.text)
        neighbour.check_app()
        assert spawn.call("GET", "/").status == 200
        spawn.spawnctl("down")
        for container in spawn.containers():  # as a restart of the machine does
            container.remove(force=True)
        scene.disk.repair()
        spawn.spawnctl("up", "--detach")
        until(lambda: spawn.call_app(neighbour.url).status == 200, _NOTICED_S, "the app")
        neighbour.user.end(neighbour.user.get_app())


@pytest.mark.chaos
def test_apps_go_on_while_each_access_to_the_disk_fails_and_are_back_once_it_is_repaired() -> None:
    with staged() as scene:
        spawn, neighbour = scene.spawn, scene.neighbour
        supervisor, key = spawn.supervisor_pid(), spawn.operator_key
        containers, before = spawn.containers(), processes(spawn, supervisor)
        os.sync()  # the last commits: SQLite leaves them to the system
        scene.disk.die()
        response = spawn.call("POST", "/api/sessions", {"template": "todo"}, key=neighbour.user.key)
        assert response.status == 503, (response.status, response.text)
        for _ in range(_TIMES_SAID):
            until(lambda: fails_by_disk(spawn.call("GET", "/ready").json), _NOTICED_S, "a reason")
        status = spawn.spawnctl("status", check=False, SPAWN_API_KEY=key)
        assert status.returncode != 0
        assert "the database can't be" in status.stderr
        assert "kill" in spawn.spawnctl("down", check=False).stderr
        neighbour.check_app()
        assert spawn.call("GET", "/").status == 200
        assert processes(spawn, supervisor) == before

        os.kill(supervisor, signal.SIGTERM)
        until(lambda: not spawn.pids("", supervisor), _NOTICED_S, "all processes to end")
        for container in containers:  # as a restart of the machine does
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)
        scene.disk.repair()
        spawn.spawnctl("up", "--detach")
        until(lambda: spawn.call_app(neighbour.url).status == 200, _NOTICED_S, "the app")
        neighbour.user.end(neighbour.user.get_app())


def processes(spawn: Installation, supervisor: int) -> dict[str, list[int]]:
    """Our processes, without those that come and go."""
    names = (".daemon", "api.server", "agents.server", ".jobs", "nginx: master", "redis-server")
    return {name: spawn.pids(name, supervisor) for name in names}


def fails_by_disk(readiness: dict[str, Any]) -> bool:
    """Whether /ready names the disk as the reason. It always names its checks."""
    database = readiness["checks"]["database"]
    return not database["ok"] and "the database can't be" in database["detail"]


def is_refused(scene: Scene) -> bool:
    response = scene.spawn.call(
        "POST", "/api/sessions", {"template": "todo"}, key=scene.neighbour.user.key
    )
    assert response.status == 503, (response.status, response.text)
    return bool(response.json["code"] == "storage_low")


def is_stuck(scene: Scene) -> bool:
    """Whether a thread of one of our processes is in an uninterruptible wait."""
    pids = scene.spawn.pids("")
    return any(state == "D" for pid in pids for state in leftovers.states_of_threads(pid))
