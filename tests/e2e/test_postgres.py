"""The main job on a PostgreSQL server instead of the embedded database."""

from __future__ import annotations

from tests.e2e.installation import installed
from tests.pooler import pooled


def test_the_main_job_runs_on_postgresql(empty_postgres_url: str) -> None:
    do_the_main_job(empty_postgres_url)


def test_the_main_job_runs_on_postgresql_behind_a_pooler(empty_postgres_url: str) -> None:
    with pooled(empty_postgres_url, "transaction", "query_wait_timeout = 10") as url:
        do_the_main_job(url)


def do_the_main_job(database_url: str) -> None:
    with installed(SPAWN_DATABASE_URL=database_url, SPAWN_WARM_TARGET="1") as spawn:
        templates = ("todo", "snake", "poll")
        session_ids = [spawn.create(template=name)["session_id"] for name in templates]
        for session_id in session_ids:
            ready = spawn.wait_for(session_id, "ready", "failed")
            assert ready["status"] == "ready", ready
            assert spawn.call_app(ready["url"]).status == 200
        for session_id in session_ids:
            spawn.call("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)
            spawn.wait_for(session_id, "destroyed")
        assert not (spawn.state_dir / "spawn.db").exists()
