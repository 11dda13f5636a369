"""A process of ours that lives and does nothing is replaced. Another user gets an app meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.installation import Installation, installed, until
from tests.e2e.test_kills import VICTIMS

WITHIN_S = 180


@pytest.fixture(scope="module")
def spawn() -> Iterator[Installation]:
    with installed(SPAWN_SLOTS="16", SPAWN_HANG_LIMIT_S="15") as spawn:
        yield spawn


@pytest.fixture(scope="module")
def app(spawn: Installation) -> str:
    """The URL of an app that somebody uses all the time."""
    session = spawn.create(template="todo")
    return str(spawn.wait_for(session["session_id"], "ready")["url"])


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_stopped_process_is_replaced_and_others_get_and_use_their_apps(
    spawn: Installation, app: str, victim: str
) -> None:
    marker, index = VICTIMS[victim]
    pid = spawn.pids(marker)[index]
    os.kill(pid, signal.SIGSTOP)
    session_id = spawn.create(template="notes")["session_id"]
    status = spawn.wait_for(session_id, "ready", "failed", within_s=WITHIN_S)
    assert status["status"] == "ready", f"{status}\n{spawn.logs()}"
    until(lambda: not _exists(pid), WITHIN_S, f"{victim} to be ended\n{spawn.logs()}")
    until(lambda: len(spawn.pids(marker)) > index, WITHIN_S, f"another {victim}")
    until(lambda: _is_served(spawn, app), WITHIN_S, f"the app to answer\n{spawn.logs()}")
    until(lambda: spawn.call("GET", "/ready").status == 200, WITHIN_S, "readiness")
    assert "hung" in spawn.call("GET", "/ready").json["checks"]["processes"]["detail"]
    assert "spawn_process_hangs_total" in spawn.call("GET", "/metrics").text
    spawn.call_patiently("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_served(spawn: Installation, url: str) -> bool:
    try:
        return spawn.call_app(url).status == 200
    except OSError:
        return False
