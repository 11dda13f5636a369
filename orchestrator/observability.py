"""Configures structured logs: a constant event name plus fields.

They are JSON lines, or coloured text in a terminal. Each process calls `configure` first of all.
"""

from __future__ import annotations

import logging
import sys

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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
