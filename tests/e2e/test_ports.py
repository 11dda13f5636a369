"""Apps whose published port died are started again, one by one if many died together."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import docker
import pytest

from tests.docker_proxies import proxies_of
from tests.e2e.installation import Installation, installed, until


@pytest.fixture(scope="module")
def busy() -> Iterator[Installation]:
    """Two running apps and three warm sandboxes."""
    with installed(SPAWN_SLOTS="9") as spawn:
        for session_id in [spawn.create(template="notes")["session_id"] for _ in range(2)]:
            spawn.wait_for(session_id, "ready")
        wait_for_warm(spawn)
        yield spawn


def test_an_app_whose_published_port_died_is_back_at_its_link(busy: Installation) -> None:
    session_id, other_id = session_ids(busy)
    url, other_url = (busy.status(session_id)["url"] for session_id in (session_id, other_id))
    neighbour = container_of(busy, other_id)

    kill_proxies([container_of(busy, session_id)])

    assert busy.call_app(url).status == 502, "nobody else knows yet"
    until(lambda: is_recovering(busy, session_id), 60, "the recovery to begin")
    busy.wait_for(session_id, "ready")
    until(lambda: busy.call_app(url).status == 200, 30, "the link to work again")
    assert "its published port refuses connections" in log_of(busy, session_id)
    assert busy.call_app(other_url).status == 200
    assert container_of(busy, other_id).id == neighbour.id
    assert container_of(busy, other_id).attrs["State"] == neighbour.attrs["State"]


def test_ports_that_die_together_are_replaced_without_a_person(busy: Installation) -> None:
    wait_for_warm(busy)
    before = sandbox_ids(busy)
    urls = [busy.status(session_id)["url"] for session_id in session_ids(busy)]

    kill_proxies(busy.sandboxes().values())

    until(lambda: before.isdisjoint(sandbox_ids(busy)), 300, "all sandboxes to be replaced")
    for url in urls:
        until(lambda url=url: busy.call_app(url).status == 200, 60, "the link to work again")
    until(lambda: busy.call("GET", "/ready").status == 200, 60, "/ready to be content")


def session_ids(spawn: Installation) -> Sequence[str]:
    """The sessions, newest first."""
    sessions = spawn.call("GET", "/api/sessions", key=spawn.operator_key).json["sessions"]
    return [session["session_id"] for session in sessions]


def sandbox_ids(spawn: Installation) -> set[str]:
    return {sandbox["sandbox_id"] for sandbox in spawn.admin("pool")["sandboxes"]}


def wait_for_warm(spawn: Installation) -> None:
    until(lambda: spawn.admin("hosts")["hosts"][0]["warm"] == 3, 90, "three warm sandboxes")
    until(
        lambda: all(sandbox["state"] != "creating" for sandbox in spawn.admin("pool")["sandboxes"]),
        90,
        "the starts to end",
    )
    until(lambda: len(spawn.sandboxes()) == 5, 90, "the removals to end")


def is_recovering(spawn: Installation, session_id: str) -> bool:
    states = [entry["state"] for entry in spawn.admin(f"sessions/{session_id}")["history"]]
    return states.count("queued") == 2


def log_of(spawn: Installation, session_id: str) -> str:
    path = f"/api/sessions/{session_id}/logs"
    lines = spawn.call("GET", path, key=spawn.operator_key).json["lines"]
    return "\n".join(line["text"] for line in lines)


def container_of(spawn: Installation, session_id: str) -> Any:
    sandbox_id = spawn.admin(f"sessions/{session_id}")["sandbox_id"]
    with contextlib.closing(docker.from_env()) as client:
        (container,) = client.containers.list(filters={"label": f"ai.spawn.sandbox={sandbox_id}"})
        return container


def kill_proxies(containers: Iterable[Any]) -> None:
    """End what Docker runs for the published ports of these containers."""
    for container in containers:
        (binding,) = container.attrs["HostConfig"]["PortBindings"]["3000/tcp"]
        for pid in proxies_of(binding["HostPort"]):
            os.kill(pid, signal.SIGKILL)
