"""What an operator does with hosts: helpers of the tests of the whole system, and of bench."""

from __future__ import annotations

from typing import Any

from tests.e2e.installation import Installation, until
from tests.fleet import Fleet, Vps

_UP_S = 180


def add_fleet(spawn: Installation, fleet: Fleet, *options: str) -> None:
    """Add all machines of the fleet to the pool, and wait until they are UP."""
    key = next(
        line for line in spawn.spawnctl("hosts", "key").stdout.splitlines() if "ssh-" in line
    )
    for vps in fleet:
        vps.authorize(key)
        add(spawn, vps, *options)
    for vps in fleet:
        wait_for_state(spawn, vps.name, "up")


def add(spawn: Installation, vps: Vps, *options: str) -> None:
    """Run `spawnctl hosts add`, as an operator who has read the fingerprint on the console."""
    spawn.spawnctl(
        *("hosts", "add", f"ssh://root@{vps.address}", "--name", vps.name),
        *("--publish-address", vps.address, "--fingerprint", vps.fingerprint, "--no-wait"),
        *options,
    )


def get(spawn: Installation, name: str) -> dict[str, Any]:
    """The host as the admin API shows it."""
    return dict(spawn.admin(f"hosts/{name}"))


def wait_for_state(spawn: Installation, name: str, *states: str, within_s: float = _UP_S) -> None:
    """Wait until the host is in one of these states. On timeout the error shows the host."""

    def is_in_state() -> bool:
        return get(spawn, name)["state"] in states

    try:
        until(is_in_state, within_s, f"{name} to be {' or '.join(states)}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {get(spawn, name)}\n{spawn.logs()}") from None
