"""Published ports of hosts over SSH: one that is closed is recovered, a firewall is the host's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import hosts
from tests.e2e.installation import Installation, installed, until
from tests.fleet import Fleet, undo_at_end

_UNPUBLISH = """
iptables -t nat -S DOCKER | grep -- "--dport $0 " | sed s/^-A/-D/ |
    while read -r rule; do iptables -t nat $rule; done
for process in /proc/[0-9]*; do
    if tr '\\0' ' ' <"$process/cmdline" | grep -q "docker-proxy.* -host-port $0 "; then
        kill -9 "${process#/proc/}"
    fi
done 2>/dev/null
"""


@pytest.fixture(scope="module")
def pool(fleet: Fleet) -> Iterator[Installation]:
    """One running app, and four warm sandboxes on two hosts."""
    settings = {"SPAWN_LOCAL_HOST": "false", "SPAWN_WARM_TARGET": "4"}
    with installed(ready=False, **settings) as pool:
        key = next(
            line for line in pool.spawnctl("hosts", "key").stdout.splitlines() if "ssh-" in line
        )
        for name in ("vps1", "vps2"):
            fleet.named(name).authorize(key)
            hosts.add(pool, fleet.named(name), "--slots", "12")
        for name in ("vps1", "vps2"):
            hosts.wait_for_state(pool, name, "up")
        pool.wait_for(pool.create(template="notes")["session_id"], "ready", within_s=180)
        wait_for_warm(pool)
        yield pool


def test_an_app_whose_port_is_closed_on_its_host_is_back_at_its_link(
    pool: Installation, fleet: Fleet
) -> None:
    session_id, url = app_of(pool)
    sandbox = sandbox_of(pool, session_id)
    vps = fleet.named(sandbox["host"])
    vps.exec("sh", "-c", _UNPUBLISH, str(sandbox["port"]))
    until(
        lambda: sandbox_of(pool, session_id)["sandbox_id"] != sandbox["sandbox_id"],
        90,
        "the recovery to begin",
    )
    pool.wait_for(session_id, "ready", within_s=180)
    until(lambda: pool.call_app(url).status == 200, 60, "the link to work again")


def test_a_firewall_before_a_host_costs_no_app(pool: Installation, fleet: Fleet) -> None:
    wait_for_warm(pool)
    session_id, url = app_of(pool)
    sandbox = sandbox_of(pool, session_id)
    vps, container_id = fleet.named(sandbox["host"]), sandbox["container_id"]
    started_at = vps.started_at()[container_id]
    rule = (
        "PREROUTING",
        "-p",
        "tcp",
        "-m",
        "multiport",
        "--dports",
        port_range(pool),
        "-j",
        "DROP",
    )
    with undo_at_end(lambda: vps.exec("iptables", "-t", "raw", "-D", *rule)):
        vps.exec("iptables", "-t", "raw", "-I", *rule)
        hosts.wait_for_state(pool, vps.name, "suspect")
        assert "published ports don't answer" in hosts.get(pool, vps.name)["reason"]
        assert pool.status(session_id)["status"] == "ready"
    hosts.wait_for_state(pool, vps.name, "up")
    assert pool.call_app(url).status == 200
    assert sandbox_of(pool, session_id)["container_id"] == container_id
    assert vps.started_at()[container_id] == started_at


def app_of(pool: Installation) -> tuple[str, str]:
    """The session and the URL of the only app."""
    (session,) = pool.call("GET", "/api/sessions", key=pool.operator_key).json["sessions"]
    return session["session_id"], pool.status(session["session_id"])["url"]


def sandbox_of(pool: Installation, session_id: str) -> dict[str, Any]:
    sandbox_id = pool.admin(f"sessions/{session_id}")["sandbox_id"]
    if sandbox_id is None:
        return {"sandbox_id": None}
    return next(
        sandbox
        for sandbox in pool.admin("pool")["sandboxes"]
        if sandbox["sandbox_id"] == sandbox_id
    )


def port_range(pool: Installation) -> str:
    return pool.env["SPAWN_PORTS"].replace("-", ":")


def wait_for_warm(pool: Installation) -> None:
    """Wait until there are four warm sandboxes, and nothing comes or goes. On timeout the error
    shows all sandboxes and the logs."""

    def sandboxes() -> list[str]:
        return [f"{row['host']} {row['state']}" for row in pool.admin("pool")["sandboxes"]]

    def is_at_rest() -> bool:
        states = [row.split()[1] for row in sandboxes()]
        return sorted(states) == ["claimed"] + ["warm"] * 4

    try:
        until(is_at_rest, 120, "four warm sandboxes")
    except AssertionError as error:
        raise AssertionError(f"{error}; there are {sandboxes()}\n{pool.logs()}") from None
