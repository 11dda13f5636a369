"""The same on a PostgreSQL server instead of the embedded database."""

from __future__ import annotations

from tests.e2e.installation import installed


def test_the_main_job_runs_on_postgresql(empty_postgres_url: str) -> None:
    with installed(SPAWN_DATABASE_URL=empty_postgres_url, SPAWN_WARM_TARGET="1") as spawn:
        made = [spawn.create(template=name)["session_id"] for name in ("todo", "snake", "poll")]
        for one in made:
            ready = spawn.wait_for(one, "ready", "failed")
            assert ready["status"] == "ready", ready
            assert spawn.app(ready["url"]).status == 200
        for one in made:
            spawn.call("DELETE", f"/api/sessions/{one}", key=spawn.operator_key)
            spawn.wait_for(one, "destroyed")
        assert not (spawn.state_dir / "spawn.db").exists()
