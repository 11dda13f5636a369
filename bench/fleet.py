"""What SSH adds to a warm claim: the same session on this machine's engine and on hosts over SSH.

Both installations run at once and take turns, so that the machine's moods hit them alike.
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
    with installed() as here, _on_a_fleet() as there:
        for _ in range(WARM_UP + RUNS):
            for one, took in ((here, local), (there, remote)):
                links.wait_until_warm(one)
                took.append(links.session(one))
    return local[WARM_UP:], remote[WARM_UP:]


@contextlib.contextmanager
def _on_a_fleet() -> Iterator[Installation]:
    project = f"spawn-bench-{os.getpid()}"
    try:
        machines.script("up", "--project", project, "--authorized-key", "-", stdin=_NOBODY)
        with (
            tempfile.TemporaryDirectory() as folder,
            installed(ready=False, SPAWN_LOCAL_HOST="false") as one,
        ):
            hosts.join(one, machines.of_project(project, Path(folder)))
            yield one
    finally:
        machines.remove(project)


# `up` wants a key to let in; those who do come in are let in afterwards.
_NOBODY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody\n"
)
