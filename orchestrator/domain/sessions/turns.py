"""How far a session has come with the changes that its user asked for.

Changes are carried out one after the other, in the order of their numbers, which count from 1
within a session. So four numbers say of each whether it waits, is under way or is over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Part of a session's row."""

    asked: int = 0  # the last that was asked for
    over: int = 0  # the last that is over, well or badly
    given: int = 0  # the last that the session's present sandbox was told to carry out; 0: none
    tries: int = 0  # how often the one after `over` has been begun

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self.asked - max(self.over, self.given)

    @property
    def under_way(self) -> bool:
        """Whether the present sandbox is at work on one."""
        return self.given > self.over

    @property
    def next(self) -> int | None:
        """The one whose turn it is or will be; None when all are over."""
        return self.over + 1 if self.asked > self.over else None

    def begun(self) -> Turns:
        """The next one has been given to the sandbox."""
        return replace(self, given=self.over + 1, tries=self.tries + 1)

    def ended(self) -> Turns:
        """The next one is over. A sandbox that was given it has it behind it."""
        return replace(self, over=self.over + 1, tries=0)

    def elsewhere(self) -> Turns:
        """Another sandbox, which has been given none, is the session's from now on."""
        return replace(self, given=0)
