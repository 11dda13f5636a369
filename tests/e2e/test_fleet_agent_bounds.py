"""A sandbox of a host over SSH takes all that it can of its agent socket. Its neighbours go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import hosts
from tests.e2e.installation import Installation, installed, until
from tests.fleet import Fleet, Vps

CONNECTIONS = 1100
PROCESSES = 4
# Opens connections without end, and at once again those that home has closed. Counts its tries.
HOLD = f"""
import os, select, socket
for _ in range({PROCESSES - 1}):
    if not os.fork():
        break
held, tried = {{}}, 0
poll = select.poll()
while True:
    while len(held) < {CONNECTIONS}:
        connection, tried = socket.socket(socket.AF_UNIX), tried + 1
        connection.settimeout(0.2)
        try:
            connection.connect("/run/spawn/agent.sock")
        except OSError:
            connection.close()
            break
        held[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)
    for number, _ in poll.poll(1):
        poll.unregister(number)
        held.pop(number).close()
    with open("/tmp/tried", "w") as file:
        file.write(str(tried))
"""


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Vps:
    return fleet.named("vps1")


@pytest.fixture(scope="module")
def pool(host: Vps) -> Iterator[Installation]:
    """An installation whose only host is one of the fleet's."""
    with installed(ready=False, SPAWN_LOCAL_HOST="false", SPAWN_WARM_TARGET="2") as pool:
        lines = pool.spawnctl("hosts", "key").stdout.splitlines()
        host.authorize(next(line for line in lines if "ssh-" in line))
        hosts.add(pool, host, "--slots", "12")
        hosts.wait_for_state(pool, host.name, "up")
        yield pool


def start(pool: Installation, template: str) -> dict[str, Any]:
    """A session that is READY."""
    session = pool.wait_for(pool.create(template=template)["session_id"], "ready", "failed")
    assert session["status"] == "ready", (session, pool.logs())
    return session


def sandbox_of(pool: Installation, session: dict[str, Any]) -> str:
    return str(pool.admin(f"sessions/{session['session_id']}")["sandbox_id"])


def count_channels(pool: Installation) -> int:
    """The streams that the host's link carries."""
    return int(hosts.get(pool, "vps1")["link"]["channels"])


def attack(pool: Installation, host: Vps, session: dict[str, Any]) -> None:
    """Have the session's sandbox attack, and wait until that is under way.

    It may have lost the sandbox that attacked before: its own agent finds no room either, and is
    replaced when it has been silent for too long.
    """

    def is_under_way() -> bool:
        if pool.status(session["session_id"])["status"] != "ready":
            return False
        in_sandbox = ("docker", "exec", f"spawn-{sandbox_of(pool, session)}")
        try:
            tries = int(host.exec(*in_sandbox, "sh", "-c", "cat /tmp/tried || echo 0") or 0)
            if not tries:
                host.exec("docker", "exec", "--detach", in_sandbox[2], "python3", "-c", HOLD)
        except AssertionError:
            return False  # it was replaced just now
        return tries >= CONNECTIONS

    until(is_under_way, 120, "the attack to be under way")


def test_a_sandbox_that_opens_1100_connections_disturbs_no_neighbour(
    pool: Installation, host: Vps
) -> None:
    attacker, other = start(pool, "notes"), start(pool, "kanban")
    sandbox_of_other, started_at = sandbox_of(pool, other), host.started_at()
    for template in ("todo", "snake", "pomodoro"):  # these need their agents' polls and reports
        attack(pool, host, attacker)
        assert count_channels(pool) < 100
        start(pool, template)
    assert pool.call("GET", "/ready").status == 200, pool.call("GET", "/ready").text
    assert "Kanban" in pool.call_app(other["url"]).text
    assert sandbox_of(pool, other) == sandbox_of_other
    ids = [row["ID"] for row in host.containers() if row["Names"] == f"spawn-{sandbox_of_other}"]
    assert [host.started_at()[container_id] for container_id in ids] == [started_at[ids[0]]]
