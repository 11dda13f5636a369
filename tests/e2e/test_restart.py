"""Stopping and starting again: sessions are kept, and their apps come back at the same URL."""

from __future__ import annotations

from tests.e2e.installation import installed, until


def test_apps_come_back_at_the_same_url_after_down_and_up() -> None:
    with installed(SPAWN_WARM_TARGET="1") as spawn:
        made = [spawn.create(template=name)["session_id"] for name in ("kanban", "shortener")]
        before = {one: spawn.wait_for(one, "ready") for one in made}

        spawn.spawnctl("down")
        assert spawn.containers() == []

        spawn.spawnctl("up", "--detach")
        for one in made:
            url = before[one]["url"]
            until(lambda url=url: spawn.app(url).status == 200, 90, f"{url}\n{spawn.logs()}")
            again = spawn.wait_for(one, "ready")
            assert again["url"] == url
            assert again["expires_at"] == before[one]["expires_at"]


def test_apps_go_on_serving_while_the_control_plane_is_down_with_keep_apps() -> None:
    with installed(SPAWN_WARM_TARGET="1") as spawn:
        made = spawn.create(template="kanban")
        url = spawn.wait_for(made["session_id"], "ready")["url"]
        kept = {one.id for one in spawn.containers()}

        spawn.spawnctl("down", "--keep-apps")
        assert {one.id for one in spawn.containers()} == kept

        spawn.spawnctl("up", "--detach")
        until(lambda: spawn.app(url).status == 200, 60, "the app to answer")
        box = spawn.admin(f"sessions/{made['session_id']}")["sandbox"]
        assert box["container_id"] in kept, "it is the same container"
