"""kill -9 of any process while 20 sessions are under way: nothing is lost or leaked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.installation import Installation, installed, until

SESSIONS = 20
TEMPLATES = ("todo", "kanban", "snake", "pomodoro", "notes", "shortener")

VICTIMS = {
    "api": ("api.server", 0),
    "agents": ("agents.server", 0),
    "worker": ("entrypoints.jobs", 1),  # one of the pool's children
    "worker pool": ("entrypoints.jobs", 0),
    "daemon": ("entrypoints.daemon", 0),
    "redis": ("redis-server", 0),
    "nginx": ("nginx: master", 0),
}


@pytest.fixture(scope="module")
def breakable() -> Iterator[Installation]:
    with installed(SPAWN_SLOTS="32") as spawn:
        yield spawn


@pytest.mark.parametrize(
    ("first", "second"),
    [("api", "daemon"), ("agents", "agents"), ("worker", "redis"), ("worker pool", "nginx")],
)
def test_twenty_sessions_survive_the_death_of(
    breakable: Installation, first: str, second: str
) -> None:
    spawn = breakable
    with ThreadPoolExecutor(4) as clients:
        sessions = list(
            clients.map(
                lambda number: spawn.create(template=TEMPLATES[number % len(TEMPLATES)]),
                range(SESSIONS),
            )
        )
    ids = [session["session_id"] for session in sessions]

    # The sessions' progress defines the moments: most have not started, and half are ready.
    spawn.kill(*VICTIMS[first])
    until(
        lambda: _count_ended(spawn, ids) >= SESSIONS // 2, 120, f"half to be ready\n{spawn.logs()}"
    )
    spawn.kill(*VICTIMS[second])

    final = [spawn.wait_for(session_id, "ready", "failed", within_s=150) for session_id in ids]
    assert Counter(status["status"] for status in final)["ready"] == SESSIONS, [
        (status["status"], status["error"]) for status in final if status["status"] != "ready"
    ]
    for status in final:
        assert spawn.call_app(status["url"]).status == 200, status
    assert len({status["url"] for status in final}) == SESSIONS

    for session_id in ids:
        spawn.call_patiently("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)
    for session_id in ids:
        spawn.wait_for(session_id, "destroyed")
    _assert_nothing_leaks(spawn)


def test_every_session_goes_on_when_redis_loses_its_data(breakable: Installation) -> None:
    spawn = breakable
    ids = [spawn.create(template="notes")["session_id"] for _ in range(6)]
    spawn.kill("redis-server")
    for session_id in ids:
        assert spawn.wait_for(session_id, "ready", "failed")["status"] == "ready"
        spawn.call_patiently("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)
    for session_id in ids:
        spawn.wait_for(session_id, "destroyed")


def _count_ended(spawn: Installation, ids: list[str]) -> int:
    response = spawn.call_patiently("GET", "/api/sessions?limit=100", key=spawn.operator_key)
    states = {session["session_id"]: session["status"] for session in response.json["sessions"]}
    return sum(states.get(session_id) in {"ready", "failed"} for session_id in ids)


def _assert_nothing_leaks(spawn: Installation) -> None:
    """Wait until only warm sandboxes are left, each with its container and no others."""

    def is_settled() -> bool:
        pool = spawn.call_patiently("GET", "/api/admin/pool", key=spawn.operator_key).json
        live = {sandbox["sandbox_id"] for sandbox in pool["sandboxes"]}
        return (
            live == set(spawn.sandboxes())
            and pool["warm"] == pool["warm_target"]
            and all(sandbox["state"] == "warm" for sandbox in pool["sandboxes"])
        )

    until(is_settled, 60, f"nothing but warm sandboxes to be left\n{spawn.logs()}")
