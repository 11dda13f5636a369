"""The agent's first moments: listen, then load and do the rest. Started by `__main__.py`.

Stopping, in order: the app with its process group (it is what keeps the container busy), then the
poll of home, then the front with the process itself.
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
        asyncio.run(_live())


async def _live() -> None:
    _stop_on_signals()
    site = Site()
    await Front(site).listen("0.0.0.0", FRONT_PORT)
    cpu_ms = round(time.process_time() * 1000)
    # tarfile, hashlib and what else a job needs are a quarter of the start-up time. Loaded here
    # they cost nobody anything: most sandboxes are warm for a while before they get a job.
    work = importlib.import_module("agent.work")
    # The collector was off since the launcher. What is imported by now stays for ever: frozen, it
    # is never walked again, and the memory pages it is on stay shared.
    gc.freeze()
    gc.enable()
    await work.work(site, listening_cpu_ms=cpu_ms)


def _stop_on_signals() -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
