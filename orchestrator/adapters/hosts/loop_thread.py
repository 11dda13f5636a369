"""An event loop in a thread of its own, for synchronous callers. fleet.py runs all links in one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import TypeVar

from orchestrator.domain import errors

_SIGN_EVERY_S = 1.0

_T = TypeVar("_T")


class LoopThread:
    """The loop and its thread, from `start` to `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._sign_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop the loop, then wait for its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    def last_sign(self) -> float:
        """When the loop last ran, by the monotonic clock."""
        return self._sign_at

    def call(self, coroutine: Coroutine[object, object, _T], timeout_s: float) -> _T:
        """Run a coroutine in the loop, from another thread.

        Raises errors.Temporary (links_busy) when it takes longer than `timeout_s`.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            future.cancel()
            raise errors.Temporary(
                f"the links did not answer within {timeout_s:g} s", code="links_busy"
            ) from error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._give_signs()
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _give_signs(self) -> None:
        self._sign_at = time.monotonic()
        self._loop.call_later(_SIGN_EVERY_S, self._give_signs)
