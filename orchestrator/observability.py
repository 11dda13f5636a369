"""Configures structured logs: a constant event name plus fields.

They are JSON lines, or coloured text in a terminal. Each process calls `configure` first of all.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from orchestrator import tracebacks
from orchestrator.slim import structlog


def configure(level: str, process: str) -> None:
    """Send this process's logs to standard error. `process` is a field of every line."""
    log_level = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ShortTracebacks("%(message)s"))
    logging.basicConfig(level=max(log_level, logging.WARNING), handlers=[handler])
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
            _add_traceback,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        # The type asks for a whole file; only these two methods are used.
        logger_factory=structlog.PrintLoggerFactory(_Unfailing(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


def _add_traceback(_: object, __: str, event: structlog.typing.EventDict) -> Mapping[str, Any]:
    """Replace the field `exc_info` by `exception`, as tracebacks describes it."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        event["exception"] = tracebacks.describe(error)
    return event


class _ShortTracebacks(logging.Formatter):
    """For the libraries, which log by themselves."""

    def formatException(self, exc_info: Any) -> str:  # noqa: N802 - the name is logging's
        error = exc_info[1]
        return tracebacks.describe(error) if error is not None else ""


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
