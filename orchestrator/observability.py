"""Configures structured logs: a constant event name plus fields.

They are JSON lines, or coloured text in a terminal. Each process calls `configure` first of all.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO

from orchestrator.slim import structlog


def configure(level: str, process: str) -> None:
    """Send this process's logs to standard error. `process` is a field of every line."""
    log_level = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(
        level=max(log_level, logging.WARNING), stream=sys.stderr, format="%(message)s"
    )
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks
            if not sys.stderr.isatty()
            else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        # The type asks for a whole file; only these two methods are used.
        logger_factory=structlog.PrintLoggerFactory(_Unfailing(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


class _Unfailing:
    """A stream whose lines are lost when they can't be written: on a full disk the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()
