"""Which host a new sandbox goes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import HostLoad

CANDIDATES = 3  # hosts that a placement compares: more buys little evenness for much reading


def placeable(load: HostLoad) -> bool:
    """Whether a new sandbox may go to this host now."""
    return load.host.open and load.free > 0 and load.starting < load.host.starts.at_once


def rank(loads: Iterable[HostLoad], *, image: str, for_warm: bool) -> Sequence[HostLoad]:
    """Hosts that may take a sandbox, the best one first.

    A warm sandbox goes where fewest are, so that losing one host doesn't lose them all, and only
    to hosts that have `image`. A session goes where most room is, starts in progress counted, and
    takes an older image rather than none.
    """
    fit = [load for load in loads if placeable(load) and (load.host.image == image or not for_warm)]
    if for_warm:
        return sorted(fit, key=lambda load: (load.warm, *_crowding(load)))
    return sorted(fit, key=lambda load: (load.host.image != image, *_crowding(load)))


def _crowding(load: HostLoad) -> tuple[int, HostId]:
    return load.starting - load.free, load.host.id
