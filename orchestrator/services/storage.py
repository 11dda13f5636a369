"""Whether the control plane's own disk has room for more: bundles, logs, the database.

Requests for sessions and changes, uploads of bundles and the readiness check ask it. What frees
room (expiry, pruning) and what runs already never asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

from orchestrator.domain import errors
from orchestrator.services.deps import Deps

_RETRY_S = 60.0

_T = TypeVar("_T")


def find_shortage(deps: Deps) -> str:
    """What is wrong with the disk, for people; "" if it has room."""
    try:
        free_bytes = deps.free_storage()
    except errors.StorageUnavailable as error:
        return str(error)
    floor_bytes = deps.policy.storage_floor_bytes
    if free_bytes >= floor_bytes:
        return ""
    return (
        f"the disk of the state folder has {free_bytes // 1024**2} MiB free, of the"
        f" {floor_bytes // 1024**2} that SPAWN_DISK_FLOOR_MB keeps: make room"
    )


def check_room(deps: Deps) -> None:
    """Raises errors.StorageFull (storage_low) if nothing new may be taken in."""
    shortage = find_shortage(deps)
    if shortage:
        raise errors.StorageFull(
            f"nothing new is taken in at the moment: {shortage}",
            code="storage_low",
            retry_after_s=_RETRY_S,
        )


def with_reserve(deps: Deps, work: Callable[[], _T]) -> _T:
    """Do `work`, which frees room, also if not a block is left: then with the room that was set
    aside. `work` is done again from its beginning.

    Raises errors.StorageFull if there was nothing set aside, or too little.
    """
    try:
        return work()
    except errors.StorageFull:
        if not deps.reserve.release():
            raise
        return work()


def keep_reserve(deps: Deps) -> None:
    """Set room aside, unless the disk is short of it: what was released is being used then."""
    with contextlib.suppress(errors.StorageUnavailable):  # the next pass tries again
        if deps.free_storage() >= deps.policy.storage_floor_bytes + 2 * deps.reserve.size_bytes:
            deps.reserve.keep()
