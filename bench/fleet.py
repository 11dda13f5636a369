"""An installation whose hosts are three machines over SSH."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import fleet as machines
from tests.e2e import hosts
from tests.e2e.installation import Installation, installed


@contextlib.contextmanager
def installed_on_a_fleet() -> Iterator[Installation]:
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
