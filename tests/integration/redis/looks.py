"""The job that the workers of test_rq_queue run: it does what the test says."""

from __future__ import annotations

from collections.abc import Callable

taken: list[str] = []  # the session id of each look, in order
on_look: list[Callable[[str], None]] = []  # what the next looks do, one after the other


def look(session_id: str) -> None:
    taken.append(session_id)
    if on_look:
        on_look.pop(0)(session_id)
