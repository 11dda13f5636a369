"""A stop and a new start: sessions are kept, and their apps come back at the same URLs."""

from __future__ import annotations

from tests.e2e.installation import installed, until


def test_apps_come_back_at_the_same_url_after_down_and_up() -> None:
    with installed(SPAWN_WARM_TARGET="1") as spawn:
        templates = ("kanban", "shortener")
        session_ids = [spawn.create(template=name)["session_id"] for name in templates]
        before = {session_id: spawn.wait_for(session_id, "ready") for session_id in session_ids}

        spawn.spawnctl("down")
        assert spawn.containers() == []

        spawn.spawnctl("up", "--detach")
        for session_id in session_ids:
            url = before[session_id]["url"]
            until(lambda url=url: spawn.call_app(url).status == 200, 90, f"{url}\n{spawn.logs()}")
            after = spawn.wait_for(session_id, "ready")
            assert after["url"] == url
            assert after["expires_at"] == before[session_id]["expires_at"]


def test_apps_keep_running_when_the_control_plane_stops_with_keep_apps() -> None:
    with installed(SPAWN_WARM_TARGET="1") as spawn:
        session = spawn.create(template="kanban")
        url = spawn.wait_for(session["session_id"], "ready")["url"]
        until(lambda: len(spawn.sandboxes()) == 2, 60, "a warm sandbox beside the app")
        container_ids = {container.id for container in spawn.sandboxes().values()}

        spawn.spawnctl("down", "--keep-apps")
        assert {container.id for container in spawn.containers()} == container_ids

        spawn.spawnctl("up", "--detach")
        until(lambda: spawn.call_app(url).status == 200, 60, "the app to answer")
        sandbox = spawn.admin(f"sessions/{session['session_id']}")["sandbox"]
        assert sandbox["container_id"] in container_ids, "it is the same container"
