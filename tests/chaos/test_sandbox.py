"""One sandbox is broken or hostile: its own app is down, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import docker
import pytest

from tests.chaos.conftest import Scene
from tests.e2e.installation import until
from tests.e2e.test_agent_bounds import metric
from tests.e2e.test_agent_socket import send, token_of

Fault = Callable[[Scene, str, Any], AbstractContextManager[None]]

# Requests without end, each a byte at a time, on as many connections as home takes. It ends with
# its sandbox.
_TRICKLE = """
import socket, time
request = b"PUT /agent/bundle HTTP/1.1\\r\\nHost: home\\r\\nContent-Length: 100000\\r\\n\\r\\n"
held = {}
while True:
    while len(held) < 200:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect("/run/spawn/agent.sock")
        except OSError:
            connection.close()
            break
        held[connection] = 0
    for connection, sent in list(held.items()):
        try:
            connection.sendall(request[sent : sent + 1] or b"x")
            held[connection] = sent + 1
        except OSError:
            del held[connection]
            connection.close()
    time.sleep(0.2)
"""
_REFUSALS = 'spawn_agent_refusals_total{reason="connections"}'
REPORT = {"seq": 999, "phase": "failed", "progress": 100, "message": "", "logs": [], "error": None}


@contextlib.contextmanager
def ended(_scene: Scene, _session_id: str, container: Any) -> Iterator[None]:
    """Its agent has ended, and the container with it."""
    container.kill()
    yield


@contextlib.contextmanager
def hanging(_scene: Scene, _session_id: str, container: Any) -> Iterator[None]:
    """Everything in it stands still; its connections stay open."""
    container.pause()
    try:
        yield
    finally:
        with contextlib.suppress(docker.errors.APIError):  # removed: it was silent for too long
            container.unpause()


@contextlib.contextmanager
def trickling(scene: Scene, _session_id: str, container: Any) -> Iterator[None]:
    before = metric(scene.spawn, _REFUSALS)
    container.exec_run(["python3", "-c", _TRICKLE], detach=True)
    until(lambda: metric(scene.spawn, _REFUSALS) > before, 60, "connections to be refused")
    yield


@contextlib.contextmanager
def lying(scene: Scene, session_id: str, _container: Any) -> Iterator[None]:
    """It reports for somebody else, of versions that don't exist, and what is no report."""
    token = token_of(scene.spawn, session_id)
    other_id = scene.neighbour.session_id
    own, other = f"/sessions/{session_id}/progress", f"/sessions/{other_id}/progress"
    for _ in range(50):
        answers = [
            send(scene.spawn, "POST", other, token, json.dumps(REPORT).encode()),
            send(scene.spawn, "POST", own, token, b"[" * 5000),
            send(scene.spawn, "POST", own, token, json.dumps({**REPORT, "seq": -1}).encode()),
            send(scene.spawn, "POST", own, token, json.dumps({**REPORT, "phase": "x"}).encode()),
            send(scene.spawn, "PUT", "/agent/bundle", token, b"no bundle"),
        ]
        assert all(400 <= status < 500 for status, _ in answers), answers
    yield


FAULTS: dict[str, Fault] = {
    "has ended": ended,
    "hangs": hanging,
    "trickles": trickling,
    "lies": lying,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_others_notice_nothing_while_a_sandbox(scene: Scene, fault: str) -> None:
    session_id = scene.victim.get_app()
    with FAULTS[fault](scene, session_id, scene.container_of(session_id)):
        scene.neighbour.check_newcomer()
    scene.victim.await_app(session_id)
    token = token_of(scene.spawn, session_id)
    scene.victim.end(session_id)
    assert send(scene.spawn, "GET", "/agent/bundle", token)[0] == 403


def test_others_notice_nothing_of_an_app_that_ends_its_sandbox_again_and_again(
    scene: Scene,
) -> None:
    session_id = scene.victim.get_app()
    for _ in range(3):
        container_id = scene.container_of(session_id).id
        scene.container_of(session_id).kill()
        scene.neighbour.check_newcomer()

        def has_another(old: str = container_id) -> bool:
            container = scene.container_of(session_id)
            return container is not None and container.id != old

        until(has_another, 60, "another sandbox")
        scene.victim.await_app(session_id)
    scene.victim.end(session_id)
