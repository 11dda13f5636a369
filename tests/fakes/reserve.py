"""A reserve without a disk."""

from __future__ import annotations


class ReserveInMemory:
    """Has nothing set aside at first."""

    size_bytes = 1024**2

    def __init__(self) -> None:
        self.is_kept = False

    def keep(self) -> None:
        self.is_kept = True

    def release(self) -> bool:
        was_kept, self.is_kept = self.is_kept, False
        return was_kept
