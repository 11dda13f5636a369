"""One sandbox takes all that it can of the agent socket. Page, API and other agents go on."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.installation import Installation, installed, until
from tests.e2e.test_agent_socket import send, token_of

CONNECTIONS = 1100
# Opens connections without end, and again those that home has closed.
HOLD = f"""
import select, socket
held = {{}}
poll = select.poll()
while True:
    while len(held) < {CONNECTIONS}:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect("/run/spawn/agent.sock")
        except OSError:
            connection.close()
            break
        held[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)
    for number, _ in poll.poll(100):
        poll.unregister(number)
        held.pop(number).close()
"""


@pytest.fixture(scope="module")
def bounded() -> Iterator[Installation]:
    with installed(SPAWN_SLOTS="12") as spawn:
        yield spawn


def container_of(spawn: Installation, session: dict[str, Any]) -> Any:
    sandbox_id = spawn.admin(f"sessions/{session['session_id']}")["sandbox_id"]
    return spawn.sandboxes()[sandbox_id]


def metric(spawn: Installation, name: str) -> float:
    sample = re.search(
        rf"^{re.escape(name)} (\S+)$", spawn.call("GET", "/metrics").text, re.MULTILINE
    )
    return float(sample[1]) if sample else 0.0


def test_a_sandbox_that_opens_1100_connections_disturbs_nobody(bounded: Installation) -> None:
    spawn = bounded
    attacker = spawn.wait_for(spawn.create(template="notes")["session_id"], "ready")
    other = spawn.wait_for(spawn.create(template="kanban")["session_id"], "ready")
    sandbox_of_other = spawn.admin(f"sessions/{other['session_id']}")["sandbox_id"]
    container = container_of(spawn, attacker)
    container.exec_run(["python3", "-c", HOLD], detach=True)
    until(
        lambda: metric(spawn, 'spawn_agent_refusals_total{reason="connections"}') >= 1,
        60,
        "connections to wait",
    )
    for template in ("todo", "snake"):  # these need their agents' polls and reports
        session = spawn.create(template=template)
        assert spawn.wait_for(session["session_id"], "ready", "failed")["status"] == "ready"
    assert spawn.call("GET", "/").status == 200
    assert spawn.call("GET", "/ready").status == 200, spawn.call("GET", "/ready").text
    assert spawn.call_app(other["url"]).status == 200
    token = token_of(spawn, other["session_id"], other["attempt"])
    answer = send(spawn, "GET", "/agent/bundle", token)
    assert answer[0] == 200, (answer, spawn.status(other["session_id"]), spawn.logs())
    assert spawn.admin(f"sessions/{other['session_id']}")["sandbox_id"] == sandbox_of_other
    assert metric(spawn, "spawn_agent_connections") < 100


def test_idle_connections_of_anybody_are_closed(bounded: Installation) -> None:
    """Also who shares a socket, such as our own processes, has to send a head."""
    path = str(bounded.state_dir / "agent" / "agent.sock")
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CONNECTIONS)]
        for connection in held:
            connection.connect(path)  # waits while the listener's queue is full
            connection.settimeout(30)
        assert bounded.call("GET", "/").status == 200
        assert bounded.call("GET", "/ready").status == 200
        for connection in held:
            assert connection.recv(1) == b""


def test_unfinished_uploads_without_a_token_are_refused_at_once(bounded: Installation) -> None:
    path = str(bounded.state_dir / "agent" / "agent.sock")
    head = (
        b"PUT /agent/bundle HTTP/1.1\r\nHost: home\r\nAuthorization: Bearer x\r\n"
        b"Content-Length: 19922944\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(200)]
        for connection in held:
            connection.connect(path)
            connection.settimeout(30)
            connection.sendall(head)
        for connection in held:
            assert connection.recv(12) == b"HTTP/1.1 401"
