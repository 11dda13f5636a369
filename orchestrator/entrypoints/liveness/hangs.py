"""The record of processes that hung. The supervisor writes it; /ready and /metrics show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

_FILE = "hangs.json"


@dataclass(frozen=True, kw_only=True)
class Hang:
    """How often a process hung since this installation began, and the last time."""

    count: int
    at: datetime
    reason: str


def read(state_dir: Path) -> Mapping[str, Hang]:
    """The hangs, by the name of the child. Empty if there were none."""
    try:
        values = json.loads((state_dir / _FILE).read_text("utf-8"))
        return {
            str(name): Hang(
                count=int(value["count"]),
                at=datetime.fromisoformat(value["at"]),
                reason=str(value["reason"]),
            )
            for name, value in values.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def record(state_dir: Path, name: str, reason: str, now: datetime) -> None:
    """Count a hang. Raises OSError."""
    hangs = dict(read(state_dir))
    count = hangs[name].count + 1 if name in hangs else 1
    hangs[name] = Hang(count=count, at=now.replace(microsecond=0), reason=reason)
    draft = state_dir / f"{_FILE}.new"
    values = {key: {**asdict(hang), "at": hang.at.isoformat()} for key, hang in hangs.items()}
    draft.write_text(json.dumps(values), "utf-8")
    draft.replace(state_dir / _FILE)
