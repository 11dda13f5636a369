"""The hosts in a file (mode 0600), for commands that must work when everything else is down.

The daemon writes it whenever a host changes; `spawnctl hosts direct` and others read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One host: what is needed to reach its Docker, and its place."""

    name: str
    docker_url: str
    host_key: str  # "" for this machine
    publish_address: str
    region: str
    slots: int = 0  # 0: unknown, the file is of an earlier release


def write(path: Path, hosts: Sequence[Host]) -> None:
    """Replace the whole file. Raises errors.StorageUnavailable."""
    entries = [
        {
            "name": host.name,
            "docker_url": host.docker_url,
            "host_key": host.host_key,
            "publish_address": host.publish_address,
            "region": host.region,
            "slots": host.slots,
        }
        for host in hosts
    ]
    draft = path.with_suffix(".new")
    with errors.storage("write the inventory"):
        draft.unlink(missing_ok=True)  # a writer that died may have left one with any mode
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_text(json.dumps({"hosts": entries}, indent=2) + "\n", "utf-8")
        draft.replace(path)


def read(path: Path) -> Sequence[Entry]:
    """Return what was written last.

    Raises errors.NotFound when there is no file, errors.InvalidInput when it is damaged,
    errors.StorageUnavailable.
    """
    with errors.storage("read the inventory"):
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError as error:
            raise errors.NotFound(
                f"there is no inventory at {path}: the daemon writes it once it runs",
                code="no_inventory",
            ) from error
        except ValueError as error:
            raise _damaged(path, error) from error
    try:
        return [_entry(data) for data in json.loads(text)["hosts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _entry(data: Mapping[str, Any]) -> Entry:
    """Fields with a default may be missing: the file may be of an earlier release."""
    names = {field.name for field in fields(Entry)}
    return Entry(**{name: data[name] for name in names.intersection(data)})


def _damaged(path: Path, error: Exception) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"the inventory at {path} is damaged ({error}); the daemon writes it anew",
        field="inventory",
    )
