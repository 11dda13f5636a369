"""kill -9 of any one process while twenty sessions are under way: nothing is lost or leaked."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.installation import Installation, installed, until

SESSIONS = 20
TEMPLATES = ("todo", "kanban", "snake", "pomodoro", "notes", "shortener")

VICTIMS = {
    "api": ("api.server", 0),
    "worker": ("entrypoints.jobs", 1),  # one of the pool's children
    "worker pool": ("entrypoints.jobs", 0),
    "daemon": ("entrypoints.daemon", 0),
    "redis": ("redis-server", 0),
    "nginx": ("nginx: master", 0),
}


@pytest.fixture(scope="module")
def breakable() -> Iterator[Installation]:
    with installed(SPAWN_SLOTS="32") as one:
        yield one


@pytest.mark.parametrize(
    ("first", "second"), [("api", "daemon"), ("worker", "redis"), ("worker pool", "nginx")]
)
def test_twenty_sessions_survive_the_death_of(
    breakable: Installation, first: str, second: str
) -> None:
    spawn = breakable
    with ThreadPoolExecutor(4) as clients:
        made = list(
            clients.map(
                lambda number: spawn.create(template=TEMPLATES[number % len(TEMPLATES)]),
                range(SESSIONS),
            )
        )
    ids = [one["session_id"] for one in made]

    # At moments that the sessions' own progress defines: most not begun yet, and half ready.
    spawn.kill(*VICTIMS[first])
    until(lambda: _ended(spawn, ids) >= SESSIONS // 2, 120, f"half to be ready\n{spawn.logs()}")
    spawn.kill(*VICTIMS[second])

    final = [spawn.wait_for(one, "ready", "failed", within_s=150) for one in ids]
    assert Counter(one["status"] for one in final)["ready"] == SESSIONS, [
        (one["status"], one["error"]) for one in final if one["status"] != "ready"
    ]
    for one in final:
        assert spawn.app(one["url"]).status == 200, one
    assert len({one["url"] for one in final}) == SESSIONS

    for one in ids:
        spawn.patient("DELETE", f"/api/sessions/{one}", key=spawn.operator_key)
    for one in ids:
        spawn.wait_for(one, "destroyed")
    _nothing_leaks(spawn)


def test_every_session_goes_on_when_redis_forgets_everything(breakable: Installation) -> None:
    spawn = breakable
    ids = [spawn.create(template="notes")["session_id"] for _ in range(6)]
    spawn.kill("redis-server")
    shutil.rmtree(spawn.state_dir / "redis" / "appendonlydir", ignore_errors=True)
    for one in ids:
        assert spawn.wait_for(one, "ready", "failed")["status"] == "ready"
        spawn.patient("DELETE", f"/api/sessions/{one}", key=spawn.operator_key)
    for one in ids:
        spawn.wait_for(one, "destroyed")


def _ended(spawn: Installation, ids: list[str]) -> int:
    answer = spawn.patient("GET", "/api/sessions?limit=100", key=spawn.operator_key)
    states = {one["session_id"]: one["status"] for one in answer.json["sessions"]}
    return sum(states.get(one) in {"ready", "failed"} for one in ids)


def _nothing_leaks(spawn: Installation) -> None:
    """Containers and live sandboxes are the same set, and only warm ones are left."""

    def settled() -> bool:
        pool = spawn.patient("GET", "/api/admin/pool", key=spawn.operator_key).json
        live = {one["sandbox_id"] for one in pool["sandboxes"]}
        there = {one.labels["ai.spawn.sandbox"] for one in spawn.containers()}
        return (
            live == there
            and pool["warm"] == pool["warm_target"]
            and all(one["state"] == "warm" for one in pool["sandboxes"])
        )

    until(settled, 60, f"nothing but warm sandboxes to be left\n{spawn.logs()}")
