"""An app whose published port died is started again; its neighbours notice nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker

from tests.e2e.installation import Installation, installed, until


def test_an_app_whose_published_port_died_is_back_at_its_link() -> None:
    with installed(SPAWN_SLOTS="9") as spawn:
        session_id, other_id = (spawn.create(template="notes")["session_id"] for _ in range(2))
        url = spawn.wait_for(session_id, "ready")["url"]
        other_url = spawn.wait_for(other_id, "ready")["url"]
        until(lambda: count_warm(spawn) == 3, 90, "three warm sandboxes")
        neighbour = container_of(spawn, other_id)
        (proxy,) = proxies_of(container_of(spawn, session_id))

        os.kill(proxy, signal.SIGKILL)

        assert spawn.call_app(url).status == 502, "nobody else knows yet"
        until(lambda: is_recovering(spawn, session_id), 60, "the recovery to begin")
        spawn.wait_for(session_id, "ready")
        until(lambda: spawn.call_app(url).status == 200, 30, "the link to work again")
        assert "its published port refuses connections" in log_of(spawn, session_id)
        assert spawn.call_app(other_url).status == 200
        assert container_of(spawn, other_id).id == neighbour.id
        assert container_of(spawn, other_id).attrs["State"] == neighbour.attrs["State"]


def is_recovering(spawn: Installation, session_id: str) -> bool:
    states = [entry["state"] for entry in spawn.admin(f"sessions/{session_id}")["history"]]
    return states.count("queued") == 2


def log_of(spawn: Installation, session_id: str) -> str:
    path = f"/api/sessions/{session_id}/logs"
    lines = spawn.call("GET", path, key=spawn.operator_key).json["lines"]
    return "\n".join(line["text"] for line in lines)


def count_warm(spawn: Installation) -> int:
    return int(spawn.admin("hosts")["hosts"][0]["warm"])


def container_of(spawn: Installation, session_id: str) -> Any:
    sandbox_id = spawn.admin(f"sessions/{session_id}")["sandbox_id"]
    with contextlib.closing(docker.from_env()) as client:
        (container,) = client.containers.list(filters={"label": f"ai.spawn.sandbox={sandbox_id}"})
        return container


def proxies_of(container: Any) -> Sequence[int]:
    """The processes that Docker runs for the published port of a container."""
    (binding,) = container.attrs["HostConfig"]["PortBindings"]["3000/tcp"]
    arguments = f"\0-host-port\0{binding['HostPort']}\0".encode()
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if arguments in (folder / "cmdline").read_bytes():
                    pids.append(int(folder.name))
    return pids
