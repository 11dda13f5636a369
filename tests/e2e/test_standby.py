"""A second control plane on one database says that it is a standby, and does nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.adapters import sql_store
from orchestrator.entrypoints.leadership.lease import LEASE
from tests.e2e.installation import ROOT, Installation, free_ports, installed, until

WITHIN_S = 90
ELSEWHERE = "elsewhere:another-boot.1:7:1:1.2"
IDENTITY = ("secret", "instance", "operator.key", "ssh")  # of an installation, in its state folder
OTHER_PROCESSES = ("daemon", "worker", "nginx", "api", "agents", "redis")


@contextlib.contextmanager
def other_machine(spawn: Installation, hostname: str) -> Iterator[Installation]:
    """A copy of the installation with a host name and process numbers of its own, not started."""
    folder = Path(str(spawn.state_dir) + "-2")
    folder.mkdir(mode=0o711)
    for name in IDENTITY:
        source = spawn.state_dir / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    http_port, api_port, control_port = free_ports(3)
    ports = {
        "SPAWN_HTTP_PORT": str(http_port),
        "SPAWN_API_PORT": str(api_port),
        "SPAWN_CONTROL_PORT": str(control_port),
    }
    env = {**spawn.env, "SPAWN_STATE_DIR": str(folder), **ports, "MACHINE": hostname}
    yield replace(spawn, state_dir=folder, http_port=http_port, env=env)


@contextlib.contextmanager
def running_there(copy: Installation) -> Iterator[str]:
    """Run `spawnctl up` on the other machine. Yields the first line that it prints."""
    program = f"{sys.executable} -m orchestrator.entrypoints.cli.main up"
    process = subprocess.Popen(
        [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"),
            *("sh", "-c", f'hostname "$MACHINE"; exec {program}'),
        ],
        cwd=ROOT,
        env=copy.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline()
    finally:
        process.kill()
        process.wait(WITHIN_S)
        process.stdout.close()


def detail_of(spawn: Installation) -> str:
    response = spawn.call("GET", "/ready")
    assert response.status == 503, response.text
    return str(response.json["checks"]["standby"]["detail"])


def assert_does_nothing(standby: Installation) -> None:
    logs = {path.stem for path in (standby.state_dir / "log").glob("*.log")}
    assert "standby" in logs
    assert logs.isdisjoint(OTHER_PROCESSES)
    response = standby.call("POST", "/api/sessions", {"template": "todo"})
    assert (response.status, response.json["code"]) == (503, "standby")
    status = standby.spawnctl("status", check=False)
    assert status.returncode != 0
    assert "standby" in status.stdout + status.stderr
    assert "standby_waits" in (standby.state_dir / "log" / "standby.log").read_text()


def test_a_copy_of_an_installation_on_another_machine_waits_and_says_how_to_take_over(
    empty_postgres_url: str,
) -> None:
    with (
        installed(SPAWN_DATABASE_URL=empty_postgres_url, SPAWN_WARM_TARGET="1") as spawn,
        other_machine(spawn, "second-machine") as copy,
    ):
        url = spawn.wait_for(spawn.create(template="todo")["session_id"], "ready")["url"]
        before = _host(spawn)
        with running_there(copy) as line:
            assert line.startswith("STANDBY    standby: the control plane on ")
            assert_does_nothing(copy)
            assert "stop it there first" in detail_of(copy)
            assert _host(spawn) == before
            assert spawn.call_app(url).status == 200
            ready = spawn.wait_for(spawn.create(template="notes")["session_id"], "ready")
            assert spawn.call_app(ready["url"]).status == 200

            spawn.spawnctl("down", "--keep-apps")
            until(
                lambda: "nobody leads this installation any more" in detail_of(copy),
                WITHIN_S,
                "the standby to notice",
            )
            assert "spawnctl down, then spawnctl up" in detail_of(copy)
        assert len(spawn.containers()) >= 2, "the end of a standby removes nothing"
        spawn.spawnctl("up", "--detach")
        shutil.rmtree(copy.state_dir)


def test_another_installation_waits_beside_a_database_that_is_not_its_own() -> None:
    with installed(SPAWN_WARM_TARGET="1") as spawn:
        url = f"sqlite:///{spawn.state_dir / 'spawn.db'}"
        with installed(ready=False, SPAWN_DATABASE_URL=url) as other:
            assert_does_nothing(other)
            detail = detail_of(other)
            assert f"leads the installation {spawn.instance} in this database" in detail
            assert "set SPAWN_DATABASE_URL" in detail
            assert spawn.call("GET", "/ready").status == 200
            spawn.spawnctl("down")
            until(
                lambda: "copy its state folder here" in detail_of(other),
                WITHIN_S,
                "the standby to notice",
            )


def test_a_control_plane_whose_lease_another_one_has_taken_becomes_a_standby() -> None:
    with installed(SPAWN_WARM_TARGET="1", SPAWN_HANG_LIMIT_S="15") as spawn:
        session = spawn.create(template="todo")["session_id"]
        spawn.wait_for(session, "ready")
        (daemon,) = spawn.pids("entrypoints.daemon")
        os.kill(daemon, signal.SIGSTOP)
        with led_elsewhere(spawn):
            until(lambda: _is_standby(spawn), WITHIN_S, f"a standby\n{spawn.logs()}")
            assert "the control plane on elsewhere leads" in detail_of(spawn)
            assert len(spawn.pids("orchestrator.entrypoints")) == 1
            assert spawn.containers(), "they belong to the other one now"
            for container in spawn.containers():  # there is no other one, really
                container.remove(force=True)


@contextlib.contextmanager
def led_elsewhere(spawn: Installation) -> Iterator[None]:
    """Another machine's daemon takes the lease when it runs out, and renews it."""
    store = sql_store.open_store(f"sqlite:///{spawn.state_dir / 'spawn.db'}")
    ended = threading.Event()

    def lead() -> None:
        while not ended.wait(0.5):
            now = datetime.now(UTC)
            store.leases.hold(LEASE, ELSEWHERE, now + timedelta(seconds=6), now)

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        store.close()


def _is_standby(spawn: Installation) -> bool:
    try:
        return "standby" in json.loads(spawn.call("GET", "/ready").body)["checks"]
    except (OSError, ValueError, LookupError):
        return False


def _host(spawn: Installation) -> dict[str, Any]:
    """What a second daemon would change in the host of this machine."""
    host = spawn.admin("hosts/local")
    return {name: host[name] for name in ("state", "slots", "reason", "drain") if name in host}
