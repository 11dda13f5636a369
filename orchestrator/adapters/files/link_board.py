"""ports.LinkBoard: the daemon writes the state of its links to a file, and the API reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from orchestrator.ports import Clock, LinkGauges

_VALID = timedelta(seconds=15)  # without a newer post, the daemon is down or the disk full


class FileLinkBoard:
    """Never raises: if the disk is full, posts are lost and reads are empty. Gauges are not
    important enough to stop anything."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def post(self, gauges: Sequence[LinkGauges]) -> None:
        content = {
            "valid_until": (self._clock.now() + _VALID).timestamp(),
            "links": [asdict(link) for link in gauges],
        }
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(content), "utf-8")
            draft.replace(self._path)
        except OSError:
            return

    def read(self) -> Sequence[LinkGauges]:
        try:
            content = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):  # a power cut may leave half a file
            return ()
        if content["valid_until"] < self._clock.now().timestamp():
            return ()
        return [_gauges_of(data) for data in content["links"]]


def _gauges_of(data: Mapping[str, Any]) -> LinkGauges:
    """The gauges, without fields of a newer release's daemon. An older one lacks fields that have
    a default."""
    names = {field.name for field in fields(LinkGauges)}
    return LinkGauges(**{name: data[name] for name in names & data.keys()})
