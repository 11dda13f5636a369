"""The agent's first moments: listen, then load and do the rest. Started by `__main__.py`.

It stops in this order: the app with its process group (it keeps the container busy), then the poll
of home, then the front with the process itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import signal
import time

from agent.layout import FRONT_PORT
from agent.serving.front import Front
from agent.serving.site import Site


def main() -> None:
    """Run until home or a signal ends it, and exit with 0 in both cases."""
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run())


async def _run() -> None:
    _stop_on_signals()
    site = Site()
    await Front(site).listen("0.0.0.0", FRONT_PORT)
    cpu_ms = round(time.process_time() * 1000)
    # What a job needs (tarfile, hashlib and more) is a quarter of the start-up time. Loaded now, it
    # delays nobody: most sandboxes are warm for a while before they get a job.
    work = importlib.import_module("agent.work")
    # The launcher turned the collector off. What is imported by now stays for ever: once frozen, it
    # is never walked again, and its memory pages stay shared.
    gc.freeze()
    gc.enable()
    await work.work(site, listening_cpu_ms=cpu_ms)


def _stop_on_signals() -> None:
    loop = asyncio.get_running_loop()
    main_task = asyncio.current_task()
    assert main_task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main_task.cancel)
