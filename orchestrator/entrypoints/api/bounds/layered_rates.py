"""How much each principal may use in a time, its user's together, and all together.

Limits of each alone add up: five apps of one visitor, each within them, would slow everybody down.
So each first uses a floor that is its own, and then what its user's and all others' leave.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.services.rates import Rate, Rates

_ALL = ""  # the one key of what all use together


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Rates in the same unit. What is within the floor counts for neither user nor all."""

    own: Rate  # the most of one principal
    floor: Rate  # what each has, however much the others use
    user: Rate  # of all that one user has, above their floors
    total: Rate  # of all users, above the floors


def alone(own: Rate) -> Layers:
    """The layers of principals that share nothing."""
    return Layers(own=own, floor=own, user=own, total=own)


@dataclass(frozen=True, kw_only=True)
class Delay:
    """Why a principal has to wait, and how long."""

    wait_s: float
    is_own: bool  # False: others, of its user or of all, have used up what is shared


class LayeredRates:
    """Token buckets for `Layers`. Threads may share it.

    Ask for the delay first, and charge what was used afterwards: a bucket may be overdrawn by what
    is admitted at the same time.
    """

    def __init__(self, layers: Layers) -> None:
        self._own = Rates(layers.own)
        self._floor = Rates(layers.floor)
        self._user = Rates(layers.user)
        self._total = Rates(layers.total, keys_max=1)

    def delay(self, principal: str, user: str, now_s: float, amount: float = 0.0) -> Delay | None:
        """What keeps the principal from using `amount` of its own rate now. None: nothing."""
        own_s = self._own.wait(principal, now_s, amount)
        if own_s:
            return Delay(wait_s=own_s, is_own=True)
        floor_s = self._floor.wait(principal, now_s, 0.0)
        if not floor_s:
            return None
        shared_s = max(self._user.wait(user, now_s, 0.0), self._total.wait(_ALL, now_s, 0.0))
        return Delay(wait_s=min(floor_s, shared_s), is_own=False) if shared_s else None

    def charge(self, principal: str, user: str, now_s: float, amount: float) -> None:
        """Count what the principal has used."""
        self._own.charge(principal, now_s, amount)
        if not self._floor.wait(principal, now_s, 0.0):
            self._floor.charge(principal, now_s, amount)
            return
        self._user.charge(user, now_s, amount)
        self._total.charge(_ALL, now_s, amount)
