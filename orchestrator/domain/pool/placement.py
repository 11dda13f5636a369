"""Which host a new sandbox is placed on. The store calls it within its transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import STARTS_IN_LINE, HostLoad

CANDIDATES = 3  # hosts that a placement compares; more would cost reads for little evenness


def can_place(load: HostLoad, *, for_warm: bool) -> bool:
    """Whether a new sandbox may be placed on this host now. Those of sessions may wait in line for
    their start; a warm one never stands before them there."""
    most = load.host.starts.at_once + (0 if for_warm else STARTS_IN_LINE)
    return load.host.accepts_placements and load.free > 0 and load.starting < most


def rank(loads: Iterable[HostLoad], *, image: str, for_warm: bool) -> Sequence[HostLoad]:
    """The hosts that can take a sandbox, the best one first.

    A warm sandbox needs a host that has `image`. It goes where the fewest warm ones are, so that
    the loss of one host doesn't take them all. A session's sandbox goes where the most slots are
    free, with starts in progress counted against a host. It accepts an older image rather than
    wait.
    """
    usable = [load for load in loads if can_place(load, for_warm=for_warm)]
    if for_warm:
        with_image = [load for load in usable if load.host.image == image]
        return sorted(with_image, key=lambda load: (load.warm, *_crowding(load)))
    return sorted(usable, key=lambda load: (load.host.image != image, *_crowding(load)))


def _crowding(load: HostLoad) -> tuple[int, HostId]:
    return load.starting - load.free, load.host.id
