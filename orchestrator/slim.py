"""Imports libraries without optional parts that our long-running processes don't need.

Some libraries import others just because they are installed. Each process would then hold them in
memory for nothing. Modules that log import structlog from here. adapters/docker/sdk.py does the
same for the Docker SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def hide_module(name: str) -> Iterator[None]:
    """Let imports of a module fail meanwhile, as if it weren't installed.

    Has no effect on a module that was imported before.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast(ModuleType, None)  # the import system then raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]


with hide_module("rich"):  # 4 MB, for tracebacks in colour
    import structlog

__all__ = ["hide_module", "structlog"]
