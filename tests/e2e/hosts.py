"""What an operator does with hosts, for tests of the whole system."""

from __future__ import annotations

from typing import Any

from tests.e2e.installation import Installation, until
from tests.fleet import Fleet, Vps

_UP_S = 180


def join(one: Installation, fleet: Fleet, *options: str) -> None:
    """Add all of them to an installation's pool, and wait until they are UP."""
    key = next(line for line in one.spawnctl("hosts", "key").stdout.splitlines() if "ssh-" in line)
    for vps in fleet:
        vps.authorize(key)
        add(one, vps, *options)
    for vps in fleet:
        await_state(one, vps.name, "up")


def add(one: Installation, vps: Vps, *options: str) -> None:
    """`spawnctl hosts add`, as an operator who read the fingerprint in the console."""
    one.spawnctl(
        *("hosts", "add", f"ssh://root@{vps.address}", "--name", vps.name),
        *("--publish-address", vps.address, "--fingerprint", vps.fingerprint, "--no-wait"),
        *options,
    )


def host(one: Installation, name: str) -> dict[str, Any]:
    """A host as the admin API shows it."""
    return dict(one.admin(f"hosts/{name}"))


def await_state(one: Installation, name: str, *states: str, within_s: float = _UP_S) -> None:
    """Fails with the host's own reason when it is none of these in time."""

    def there() -> bool:
        return host(one, name)["state"] in states

    try:
        until(there, within_s, f"{name} to be {' or '.join(states)}")
    except AssertionError as late:
        raise AssertionError(f"{late}: {host(one, name)}\n{one.logs()}") from None
