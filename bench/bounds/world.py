"""The installation on which the attacks run, with its twenty witnesses.

There are two kinds. ORDINARY has everything in its state folder, on a small disk. OUTSIDE takes
Redis from a port, as over a network, and has a clock of its own: an attack can change both.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass

from bench.bounds.witnesses import COUNT, Witnesses
from bench.folders import passable_folder
from tests.disks import SmallDisk, small_disk
from tests.e2e.installation import Installation, installed, until
from tests.fakes.llm.messages_api import MessagesApi
from tests.integration.redis.server import RedisServer, running_redis
from tests.machine_clock import MachineClock, machine_clock

WARM = 6
_SLOTS = 80
_DISK_MIB = 512
_WELL_S = 180
_KEY = "a-key-for-the-provider"
_SETTINGS = {
    "SPAWN_SLOTS": str(_SLOTS),
    "SPAWN_WARM_TARGET": str(WARM),
    "SPAWN_SANDBOX_MEMORY_MB": "256",
    "SPAWN_HOST_MEMORY_FLOOR_MB": "0",
    "SPAWN_DISK_FLOOR_MB": "32",
    "SPAWN_STORAGE_TOTAL_MB": "256",
    "SPAWN_SHARE_BETWEEN_USERS": "true",  # the witnesses are generated once
    "ANTHROPIC_API_KEY": _KEY,
}


class Kind(enum.Enum):
    """What an installation of the runs depends on."""

    ORDINARY = "ordinary"  # a private Redis; its state folder is a file system of its own
    OUTSIDE = "outside"  # Redis over TCP; a clock that can jump


@dataclass
class World:
    """An installation, and what an attack may take hold of."""

    kind: Kind
    spawn: Installation
    provider: MessagesApi
    witnesses: Witnesses
    disk: SmallDisk | None = None
    redis: RedisServer | None = None
    clock: MachineClock | None = None
    known: frozenset[str] = frozenset()  # problems of this machine, found before any attack

    def await_well(self) -> str:
        """Wait until nothing is left of an attack. Returns what is not well in time, or nothing."""
        try:
            until(self._is_well, _WELL_S, "readiness, a full pool at rest and no other session")
        except AssertionError:
            return f"not well after {_WELL_S} s: {self._state()}"
        new = self.findings() - self.known
        return f"doctor has a problem: {', '.join(sorted(new))}" if new else ""

    def findings(self) -> set[str]:
        """The names of the problems that `spawnctl doctor` sees."""
        checks = json.loads(self.spawn.spawnctl("doctor", "--json", check=False).stdout)["checks"]
        return {check["name"] for check in checks if check["level"] == "problem"}

    def _is_well(self) -> bool:
        try:
            if self.spawn.call("GET", "/ready").status != 200:
                return False
            pool = self.spawn.admin("pool")
        except (OSError, http.client.HTTPException, AssertionError):
            return False
        others = pool["creating"] + pool["stopping"] + pool["broken"]
        return bool(pool["warm"] >= WARM and pool["claimed"] == COUNT and others == 0)

    def _state(self) -> str:
        try:
            ready = self.spawn.call("GET", "/ready").text
            pool = self.spawn.admin("pool")
        except (OSError, http.client.HTTPException, AssertionError) as error:
            return f"{type(error).__name__}: {error}"[:300]
        counts = {
            name: pool[name] for name in ("warm", "creating", "claimed", "stopping", "broken")
        }
        return f"{counts} {ready[:300]}"


@contextlib.contextmanager
def running(kind: Kind) -> Iterator[World]:
    """A new installation of this kind, with its witnesses, at rest."""
    make = _ordinary if kind is Kind.ORDINARY else _outside
    with MessagesApi(key=_KEY) as provider, make(provider) as world:
        world.witnesses.complete()
        world.known = frozenset(world.findings())
        trouble = world.await_well()
        assert not trouble, f"the new installation is not well: {trouble}\n{world.spawn.logs()}"
        yield world


@contextlib.contextmanager
def _ordinary(provider: MessagesApi) -> Iterator[World]:
    with passable_folder() as folder, small_disk(folder / "state", _DISK_MIB) as disk:
        settings = {
            **_SETTINGS,
            "ANTHROPIC_BASE_URL": provider.url,
            "SPAWN_PORTS": "19000-19199",
            "SPAWN_STATE_DIR": str(disk.folder),
        }
        with installed(**settings) as spawn:
            yield World(Kind.ORDINARY, spawn, provider, Witnesses(spawn, provider), disk=disk)


@contextlib.contextmanager
def _outside(provider: MessagesApi) -> Iterator[World]:
    with passable_folder() as folder, running_redis(folder) as redis, machine_clock() as clock:
        settings = {
            **_SETTINGS,
            "ANTHROPIC_BASE_URL": provider.url,
            "SPAWN_PORTS": "19200-19399",
            "SPAWN_REDIS_URL": redis.url,
            **clock.env,
        }
        with installed(**settings) as spawn:
            witnesses = Witnesses(spawn, provider)
            yield World(Kind.OUTSIDE, spawn, provider, witnesses, redis=redis, clock=clock)
