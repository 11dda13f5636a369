"""How far a session has come with the changes that its user requested.

Changes are numbered from 1 within a session and carried out one after the other, in that order.
Four numbers are therefore enough to tell of each change whether it waits, runs or is finished.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Part of a session's row. Each field but `tries` is the number of a change, 0 for none."""

    requested: int = 0  # the last one that the user requested
    finished: int = 0  # the last one that succeeded or failed
    started: int = 0  # the last one that the present sandbox was told to carry out
    tries: int = 0  # how often the change after `finished` has been started

    @property
    def waiting(self) -> int:
        """How many changes wait for their turn."""
        return self.requested - max(self.finished, self.started)

    @property
    def has_running_change(self) -> bool:
        """Whether the present sandbox is carrying out a change."""
        return self.started > self.finished

    @property
    def next_number(self) -> int | None:
        """The change that runs or is the next to run. None: all are finished."""
        return self.finished + 1 if self.requested > self.finished else None

    def start_next(self) -> Turns:
        """The present sandbox has been told to carry out the next change."""
        return replace(self, started=self.finished + 1, tries=self.tries + 1)

    def finish_next(self) -> Turns:
        """The next change is finished. If the present sandbox ran it, it runs none any more."""
        return replace(self, finished=self.finished + 1, tries=0)

    def on_new_sandbox(self) -> Turns:
        """The session has another sandbox, which has been told to carry out no change yet."""
        return replace(self, started=0)
