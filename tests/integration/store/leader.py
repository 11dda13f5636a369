"""A daemon of one loop, which writes a line at each pass. The tests of the lease stop and wake it.

Started as `python -m tests.integration.store.leader STATE_DIR DATABASE_URL`.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from orchestrator import bootstrap, config, observability
from orchestrator.entrypoints.daemon import keep_or_exit
from orchestrator.entrypoints.leadership.lease import Lease
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.loop_supervisor import LoopSupervisor
from tests.fakes.events import EventsInMemory


def main(state_dir: str, database_url: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    observability.configure("info", "daemon")
    settings = config.make(state_dir=Path(state_dir), database_url=database_url)
    deps = bootstrap.build(settings, bootstrap.NoEngines())
    lease = Lease(deps, stop)
    if not lease.acquire():
        return

    def act() -> str:
        lease.check()
        print("acted", lease.number, flush=True)
        return ""

    spec = LoopSpec(name="act", every_s=0.02, run=act)
    loops = LoopSupervisor([spec], EventsInMemory(), lease.check, stopping=stop)
    try:
        loops.run(until_stopped=lambda: keep_or_exit(lease))
    finally:
        lease.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
