"""What reading long lists may cost: for each user, and for all visitors of an address together.

One list of a principal is read at a time, within a share of the processor. Whoever leaves out the
cookie is a new user each time, so users alone would bound nothing. long_reads.py uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.entrypoints.api.bounds.holds import Holds, RefusalCounter
from orchestrator.entrypoints.api.bounds.layered_rates import alone
from orchestrator.entrypoints.api.bounds.turns import Turns
from orchestrator.entrypoints.api.bounds.work_shares import WorkShares
from orchestrator.services.rates import Rate

# Of the threads that serve everybody, with all principals together.
_AT_ONCE = 2
_ADVICE = "your lists take too long to read: ask less often, and for less"

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """What one principal may read."""

    waiting: int  # requests that are read or wait for their turn; all processes together
    share: Rate  # seconds of processor time, in each process of the API


# A card of the page makes four requests, and a browser opens its tabs again all at once. A list of
# 50 sessions takes some 5 ms.
USER = ReadLimits(waiting=40, share=Rate(per_s=0.1, burst=1.0))
ADDRESS = ReadLimits(waiting=200, share=Rate(per_s=0.2, burst=2.0))


class LongReads:
    """The reads of one process. Use it from one event loop only."""

    def __init__(
        self,
        refusals: RefusalCounter,
        processes: int,
        *,
        user: ReadLimits = USER,
        address: ReadLimits = ADDRESS,
    ) -> None:
        """`processes` share the requests that may wait."""
        self._limits = {"user": user, "address": address}
        self._turns = Turns(
            Holds(
                "lists that are read or wait for it",
                code="too_many_reads",
                refusals=refusals,
                processes=processes,
            )
        )
        self._shares = {
            kind: WorkShares(refusals, alone(limits.share), advice=_ADVICE)
            for kind, limits in self._limits.items()
        }
        self._threads = asyncio.Semaphore(_AT_ONCE)

    async def read(
        self, threads: Executor, readers: Sequence[tuple[str, str]], make: Callable[[], _T]
    ) -> _T:
        """What `make` makes, in one of `threads`. `readers` are "user" or "address", each with its
        name, always in this order: so that no two requests wait for each other.

        Raises errors.LimitReached (too_many_reads, too_much_work), and what `make` raises.
        """

        def work() -> _T:
            with contextlib.ExitStack() as shares:
                for kind, name in readers:
                    shares.enter_context(self._shares[kind].reading(name))
                return make()

        async with contextlib.AsyncExitStack() as turns:
            for kind, name in readers:
                limit = self._limits[kind].waiting
                await turns.enter_async_context(self._turns.turn(f"{kind} {name}", limit))
            await turns.enter_async_context(self._threads)
            return await asyncio.get_running_loop().run_in_executor(threads, work)
