"""The disk of the control plane is full: no app notices, and all is well once there is room."""

from __future__ import annotations

import http.client
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import SmallDisk, small_disk
from tests.e2e.installation import Installation, installed, until

_MIB = 1024**2
_ROTATED_S = 120  # the supervisor looks at its logs once a minute


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    # Not in pytest's temporary folder: the proxy's workers can't read that one.
    folder = Path(tempfile.mkdtemp(prefix="spawn-disk-"))
    folder.chmod(0o711)
    try:
        with small_disk(folder / "state", size_mib=160) as disk:
            yield disk
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_full_disk_ends_no_process_and_no_app(disk: SmallDisk) -> None:
    settings = {"SPAWN_STATE_DIR": str(disk.folder), "SPAWN_DISK_FLOOR_MB": "32"}
    with installed(SPAWN_WARM_TARGET="1", **settings) as spawn:
        url = ready_app(spawn)
        before = processes(spawn)
        log = disk.folder / "log" / "api.log"
        with log.open("ab") as stream:
            stream.write(b"x" * (21 * _MIB))

        disk.fill()
        refused = spawn.call(
            "POST", "/api/sessions", {"template": "kanban"}, key=spawn.operator_key
        )
        assert (refused.status, refused.json["code"]) == (503, "storage_low")
        assert refused.headers["retry-after"] == "60"
        until(lambda: "SPAWN_DISK_FLOOR_MB" in storage_detail(spawn), 60, "readiness to say so")
        assert "spawn_storage_low 1.0" in spawn.call("GET", "/metrics").text
        spawn.kill("orchestrator.entrypoints.jobs", index=1)
        until(
            lambda: log.stat().st_size < _MIB, _ROTATED_S, f"its log to be emptied\n{spawn.logs()}"
        )
        disk.fill()
        assert spawn.call_app(url).status == 200
        assert spawn.call("GET", "/").status == 200
        assert processes(spawn) == before, spawn.logs()

        disk.free()
        until(lambda: is_ready(spawn), 60, f"readiness\n{spawn.logs()}")
        ready_app(spawn)
        assert spawn.call_app(url).status == 200
        assert processes(spawn) == before, spawn.logs()


def processes(spawn: Installation) -> dict[str, list[int]]:
    """The supervisor, and the processes that nobody kills here."""
    names = ("entrypoints.daemon", "api.server", "nginx: master", "redis-server")
    return {"supervisor": [spawn.supervisor_pid()], **{name: spawn.pids(name) for name in names}}


def storage_detail(spawn: Installation) -> str:
    """What /ready says of the disk if all is not well with it."""
    check = spawn.call("GET", "/ready").json["checks"]["storage"]
    return "" if check["ok"] else str(check["detail"])


def ready_app(spawn: Installation) -> str:
    session = spawn.create(template="kanban")
    return str(spawn.wait_for(session["session_id"], "ready")["url"])


def is_ready(spawn: Installation) -> bool:
    try:
        return spawn.call("GET", "/ready").status == 200
    except (OSError, http.client.HTTPException):
        return False
