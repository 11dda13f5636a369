"""Marks: files of ours in the agent folder of a host. They show whether its engine has that folder.

SshFleet calls it for ports.Fleet.mark.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.ports import CommandOutcome

_PREFIX = "mark-"
# Makes a mark, and removes those that were left. $1: the agent folder, $2: the mark's name.
_MAKE = f'rm -f -- "$1"/{_PREFIX}* && touch -- "$1/$2"'


@contextlib.contextmanager
def make(host: Host, run: Callable[[Sequence[str]], CommandOutcome]) -> Iterator[str]:
    """Yield the name of a new file in the agent folder. `run` carries out a command on the host.

    Raises errors.HostUnfit, errors.StorageUnavailable, errors.Temporary.
    """
    name = f"{_PREFIX}{secrets.token_hex(8)}"
    folder = Path(host.agent_folder)
    if host.is_remote:
        outcome = run(("sh", "-c", _MAKE, "sh", host.agent_folder, name))
        if outcome.code != 0:
            raise errors.HostUnfit(f"a file can't be made there: {outcome.output[:200]}")
    else:
        with errors.storage("write into the agent folder"):
            for earlier in folder.glob(f"{_PREFIX}*"):
                earlier.unlink(missing_ok=True)
            (folder / name).touch()
    try:
        yield name
    finally:
        # What stays, because link or process ends, the next mark removes.
        with contextlib.suppress(errors.Temporary, OSError):
            if host.is_remote:
                run(("rm", "-f", f"{host.agent_folder}/{name}"))
            else:
                (folder / name).unlink(missing_ok=True)
