"""The hosts in a file (mode 0600), for commands that have to work when everything else is down.

Written by the daemon whenever a host changed, read by `spawnctl hosts direct`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One host, as far as it takes to reach its Docker."""

    name: str
    docker_url: str
    host_key: str  # "" for this machine
    publish_address: str
    region: str


def write(path: Path, hosts: Sequence[Host]) -> None:
    """Replace the file whole."""
    entries = [
        {
            "name": host.name,
            "docker_url": host.docker_url,
            "host_key": host.host_key,
            "publish_address": host.publish_address,
            "region": host.region,
        }
        for host in hosts
    ]
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)  # one that a dead writer left has whatever mode it has
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_text(json.dumps({"hosts": entries}, indent=2) + "\n", "utf-8")
    draft.replace(path)


def read(path: Path) -> Sequence[Entry]:
    """What was last written. Raises errors.NotFound, errors.InvalidInput when it is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return [Entry(**one) for one in found["hosts"]]
    except FileNotFoundError as error:
        raise errors.NotFound(
            f"there is no inventory at {path}: the daemon writes it once it runs",
            code="no_inventory",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise errors.InvalidInput(
            f"the inventory at {path} is damaged ({error}); the daemon writes it anew",
            field="inventory",
        ) from error
