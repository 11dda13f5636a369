"""Threads as tests want them: executors that have done their work, or hold it back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class CallersThread(Executor):
    """Does what it is given before it returns, so that a pass has ended when it is over."""

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        _settle(done, lambda: fn(*given, **named))
        return done


class LaterThread(Executor):
    """Keeps what it is given until it is told to `catch_up`: a host that is slow to answer."""

    def __init__(self) -> None:
        self.kept: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.kept.append((future, lambda: fn(*given, **named)))
        return future

    def catch_up(self) -> None:
        kept, self.kept = self.kept, []
        for future, work in kept:
            _settle(future, work)


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - as a pool of threads keeps it
        future.set_exception(error)
