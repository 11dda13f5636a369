"""The time that SSH adds to a warm claim: a session on this machine's engine, and one over SSH.

Both installations run at once and take turns, so that the machine's load affects both alike.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import links
from tests import fleet as machines
from tests.e2e import hosts
from tests.e2e.installation import Installation, installed

WARM_UP = 3
RUNS = 30


def warm_sessions() -> tuple[list[float], list[float]]:
    """Seconds from POST to the first 200: on the local engine, and on three hosts over SSH."""
    local: list[float] = []
    remote: list[float] = []
    with installed() as local_spawn, _on_a_fleet() as remote_spawn:
        for _ in range(WARM_UP + RUNS):
            for spawn, durations in ((local_spawn, local), (remote_spawn, remote)):
                links.wait_until_warm(spawn)
                durations.append(links.session(spawn))
    return local[WARM_UP:], remote[WARM_UP:]


@contextlib.contextmanager
def _on_a_fleet() -> Iterator[Installation]:
    """An installation whose hosts are a fleet."""
    project = f"spawn-bench-{os.getpid()}"
    try:
        machines.script("up", "--project", project, "--authorized-key", "-", stdin=NOBODY)
        with (
            tempfile.TemporaryDirectory() as folder,
            installed(ready=False, SPAWN_LOCAL_HOST="false") as spawn,
        ):
            hosts.add_fleet(spawn, machines.await_machines(project, Path(folder)))
            yield spawn
    finally:
        machines.remove(project)


# `up` needs a key to authorize. `add_fleet` authorizes the real one afterwards.
NOBODY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody\n"
