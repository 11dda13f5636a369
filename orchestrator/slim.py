"""Libraries without those of their parts that our long-running processes have no use for.

Some libraries import others wherever these happen to be installed; each process would hold them in
memory for nothing. Who logs gets structlog from here; adapters/docker/sdk.py does the same for
the Docker SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def absent(name: str) -> Iterator[None]:
    """Imports of a module that isn't there yet fail meanwhile, as if it weren't installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast(ModuleType, None)  # what the import system takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[name]


with absent("rich"):  # 4 MB, for tracebacks in colour
    import structlog

__all__ = ["absent", "structlog"]
