"""Opens apps at their public addresses, for agents that try a version and for converge.

No thread waits for an app, and no worker. Users take turns: an app that hangs keeps its own user's
others waiting at most. `server` runs it; a walk that is lost with this process is asked for again.
"""

from __future__ import annotations

import asyncio

from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.wire.trials import TURN_LIMIT_S
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, Slug, UserId
from orchestrator.entrypoints.api.bounds.fair_slots import FairSlots
from orchestrator.entrypoints.api.context import Context
from orchestrator.ports import topics
from orchestrator.services.agents import trials
from orchestrator.services.sessions import walks
from orchestrator.services.sessions.walks import Errand
from orchestrator.slim import structlog

log = structlog.get_logger()

WALKS = 64
"""At a time. One holds a connection and some 200 KiB, for 10 s at most."""
USER_WALKS = 8
"""At a time, of one user."""
_NOTED_AFTER_S = 1.0  # a walk that is still under way then: nobody needs to look for its result
_BUSY = Finding(
    condition=Condition.UNREACHED, problem="The control plane has too much to do to open the app."
)


class Walks:
    """Use it from one event loop only."""

    def __init__(
        self,
        context: Context,
        *,
        slots: int = WALKS,
        user_slots: int = USER_WALKS,
        turn_s: float = TURN_LIMIT_S,
    ) -> None:
        """`slots` at a time, `user_slots` of one user; a turn is waited for `turn_s` at most."""
        self._context = context
        self._slots = FairSlots(slots, user_slots)
        self._turn_s = turn_s
        context.metrics.waiting_walks.set_function(lambda: self._slots.waiting)
        self._following: dict[SessionId, asyncio.Task[None]] = {}
        self._asked_again: set[SessionId] = set()

    async def run(self) -> None:
        """Walk the apps of the sessions that want it, until cancelled."""
        self._context.hub.listen(topics.WALK, self._take)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            tasks = set(self._following.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def try_version(self, token: str, secret: str) -> Finding:
        """Open the version that the sandbox with this token tries. See `trials`."""
        in_thread, deps = self._context.in_thread, self._context.deps
        trial = await in_thread(trials.find_trial, deps, token)
        if isinstance(trial, Finding):
            return trial
        finding = await self._walk(trial.user_id, trial.slug, secret)
        await in_thread(trials.check_wanted, deps, token)
        return finding

    def _take(self, subject: str) -> None:
        session_id = SessionId(subject)
        if session_id in self._following:
            self._asked_again.add(session_id)
            return
        self._following[session_id] = asyncio.create_task(self._follow(session_id))

    async def _follow(self, session_id: SessionId) -> None:
        """Walk until the session wants no other walk. Nobody else walks it meanwhile."""
        try:
            is_wanted = True
            while is_wanted:
                self._asked_again.discard(session_id)
                await self._walk_while_wanted(session_id)
                is_wanted = session_id in self._asked_again
        except errors.SpawnError as error:  # the database is away, for example
            log.warning("walk_lost", session=session_id, error=str(error))
        except Exception:  # a bug that one app brings out must not end the others' walks
            log.exception("walk_crashed", session=session_id)
        finally:
            self._asked_again.discard(session_id)
            self._following.pop(session_id, None)

    async def _walk_while_wanted(self, session_id: SessionId) -> None:
        in_thread, deps = self._context.in_thread, self._context.deps
        pause_s: float | None = 0.0
        while pause_s is not None:
            await asyncio.sleep(pause_s)
            errand = await self._context.look_up(walks.find_errand, deps, session_id)
            if errand is None:
                return
            finding = await self._walk_noted(errand)
            pause_s = await in_thread(walks.end, deps, errand, finding)

    async def _walk_noted(self, errand: Errand) -> Finding:
        walking = asyncio.create_task(self._walk(errand.user_id, errand.slug))
        try:
            done, _ = await asyncio.wait({walking}, timeout=_NOTED_AFTER_S)
            if not done:
                await self._context.in_thread(walks.begin, self._context.deps, errand)
            return await walking
        finally:
            walking.cancel()

    async def _walk(self, user_id: UserId, slug: Slug, secret: str = "") -> Finding:
        if not await self._slots.acquire(user_id, self._turn_s):
            return _BUSY
        try:
            return await self._context.deps.probe.walk(slug, secret)
        finally:
            self._slots.release(user_id)
