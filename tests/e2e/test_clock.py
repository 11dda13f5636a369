"""Somebody sets the machine's clock: nothing that runs notices, and nothing is deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.e2e.installation import Installation, installed, until
from tests.machine_clock import MachineClock, machine_clock

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
APP_TTL_S = 12 * HOUR_S
BRIEF_TTL_S = 60


@dataclass(frozen=True)
class Jump:
    """How the clock is set, and on what."""

    seconds: int
    apps: int
    warm: int
    restarts: bool = False  # whether all of SpawnAI is started again before the clock is right


# So few agents are never silent together: the silence of each would count.
JUMPS = (
    Jump(seconds=3 * MINUTE_S, apps=1, warm=0),
    Jump(seconds=-2 * HOUR_S, apps=2, warm=2),
    Jump(seconds=40 * DAY_S, apps=2, warm=2, restarts=True),
)


@dataclass(frozen=True)
class StatefulApp:
    """An app with a link that only its running process and its sandbox know."""

    session_id: str
    url: str
    code: str


def test_all_goes_on_when_the_clock_is_set() -> None:
    # Side by side: each waits a minute for an app to expire.
    with ThreadPoolExecutor(len(JUMPS)) as jumps:
        for outcome in [jumps.submit(_jump, jump) for jump in JUMPS]:
            outcome.result()


def _jump(jump: Jump) -> None:
    with (
        machine_clock() as clock,
        installed(SPAWN_WARM_TARGET=str(jump.warm), **clock.env) as spawn,
    ):
        _assert_all_goes_on(spawn, clock, jump)


def _assert_all_goes_on(spawn: Installation, clock: MachineClock, jump: Jump) -> None:
    ended = _create_ready(spawn)
    spawn.call_patiently("DELETE", f"/api/sessions/{ended}", key=spawn.operator_key)
    spawn.wait_for(ended, "destroyed")
    apps = [_create_stateful(spawn) for _ in range(jump.apps)]
    sandboxes = _sandboxes_of(spawn, apps)
    began_s = time.monotonic()
    brief = _create_ready(spawn, ttl=f"{BRIEF_TTL_S}s")
    _wait_for_warm(spawn, jump.warm)

    clock.set_to(jump.seconds)
    _create_ready(spawn)
    _wait_for_warm(spawn, jump.warm)
    # An app ends after its time to live, by the time that has really passed.
    spawn.wait_for(brief, "destroyed", within_s=BRIEF_TTL_S + 60)
    assert time.monotonic() - began_s >= BRIEF_TTL_S, "it expired early"

    # New processes see only the new time.
    spawn.kill_daemon()
    spawn.kill("api.server")
    spawn.kill("agents.server")
    if jump.restarts:
        spawn.spawnctl("down", "--keep-apps")
        spawn.spawnctl("up", "--detach")
    _create_ready(spawn)

    assert _sandboxes_of(spawn, apps) == sandboxes, "an app was started again"
    _assert_values(spawn, apps)
    assert spawn.status(ended)["status"] == "destroyed", "a record was pruned"
    for app in apps:
        _assert_shown_sanely(spawn.status(app.session_id), clock)

    # It is said to the operator.
    offset_s = _metric(spawn, "spawn_clock_offset_seconds")
    assert offset_s == pytest.approx(jump.seconds, abs=5)
    assert ("ahead" if jump.seconds > 0 else "behind") in _check_of_clock(spawn)
    assert any("clock" in warning for warning in spawn.admin("overview")["warnings"])
    until(lambda: _has_logged_jump(spawn), 30, "the jump to be logged")

    clock.set_to(0)  # somebody sets it right again
    _create_ready(spawn)
    assert _sandboxes_of(spawn, apps) == sandboxes
    _assert_values(spawn, apps)
    until(lambda: not _metric(spawn, "spawn_clock_offset_seconds"), 60, "the offset to be gone")


def _create_ready(spawn: Installation, **fields: str) -> str:
    session_id = spawn.create(template="kanban", **fields)["session_id"]
    spawn.wait_for(session_id, "ready")
    return str(session_id)


def _create_stateful(spawn: Installation) -> StatefulApp:
    session_id = spawn.create(template="shortener", ttl=f"{APP_TTL_S}s")["session_id"]
    url = spawn.wait_for(session_id, "ready")["url"]
    link = spawn.call_app(url, "/api/links", "POST", {"url": "https://example.org/mine"})
    assert link.status == 201, link.text
    return StatefulApp(session_id=session_id, url=url, code=link.json["code"])


def _assert_values(spawn: Installation, apps: list[StatefulApp]) -> None:
    for app in apps:
        link = spawn.call_app(app.url, f"/api/links/{app.code}")
        assert link.status == 200, f"{app.url} has lost its value: {link.text}"


def _sandboxes_of(spawn: Installation, apps: list[StatefulApp]) -> Mapping[str, str]:
    """The apps' sandboxes, by session."""
    sessions = {app.session_id for app in apps}
    return {
        sandbox["session_id"]: sandbox["sandbox_id"]
        for sandbox in spawn.admin("pool")["sandboxes"]
        if sandbox["session_id"] in sessions
    }


def _assert_shown_sanely(status: Mapping[str, str], clock: MachineClock) -> None:
    """The times in the status are those of the machine's clock, as people see it."""
    now_s = clock.now_s()
    left_s = datetime.fromisoformat(status["expires_at"]).timestamp() - now_s
    age_s = now_s - datetime.fromisoformat(status["created_at"]).timestamp()
    assert APP_TTL_S - 10 * MINUTE_S < left_s <= APP_TTL_S
    assert 0 <= age_s < 10 * MINUTE_S


def _wait_for_warm(spawn: Installation, count: int) -> None:
    until(lambda: spawn.admin("pool")["warm"] >= count, 90, f"{count} warm sandboxes")


def _check_of_clock(spawn: Installation) -> str:
    return str(spawn.call("GET", "/ready").json["checks"]["clock"]["detail"])


def _has_logged_jump(spawn: Installation) -> bool:
    return "clock_jumped" in (spawn.state_dir / "log" / "daemon.log").read_text()


def _metric(spawn: Installation, name: str) -> float:
    lines = spawn.call("GET", "/metrics", key=spawn.operator_key).text.splitlines()
    values = [float(line.split()[1]) for line in lines if line.startswith(f"{name} ")]
    assert values, f"there is no metric {name}"
    return values[0]
