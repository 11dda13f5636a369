"""Executors without threads: one runs its work at once, one when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class ImmediateExecutor(Executor):
    """Runs each task within `submit`, so that a pass has ended when it returns."""

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        _run(future, lambda: fn(*given, **named))
        return future


class DeferredExecutor(Executor):
    """Holds its tasks back until `run_pending`, like work on a host that is slow to answer."""

    def __init__(self) -> None:
        self.pending: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.pending.append((future, lambda: fn(*given, **named)))
        return future

    def run_pending(self) -> None:
        pending, self.pending = self.pending, []
        for future, work in pending:
            _run(future, work)


def _run(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - a thread pool keeps it in the future, too
        future.set_exception(error)
