"""spawn-worker: RQ workers, and the one job that they run."""

from __future__ import annotations

import functools
import time

from orchestrator import bootstrap, config, observability
from orchestrator.adapters.redis import rq_queue
from orchestrator.domain.ids import SessionId
from orchestrator.entrypoints import engines
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import converge as service
from orchestrator.slim import structlog

log = structlog.get_logger()


def converge(session_id: str) -> None:
    """Look at one session. What RQ calls; see adapters/redis/rq_queue.py."""
    began = time.perf_counter()
    outcome = service.converge(_deps(), SessionId(session_id))
    log.info(
        "converged",
        session=session_id,
        state=outcome.state,
        steps=outcome.steps,
        waits_for=outcome.waits_for or None,
        ms=round((time.perf_counter() - began) * 1000, 1),
    )


def main() -> None:
    """Run the workers until told to stop."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "worker")
    # The pool only watches; its workers open their own connections, after the fork.
    rq_queue.run_workers(
        bootstrap.connect_redis(settings), settings.processes.workers, at_start=_deps
    )


@functools.cache
def _deps() -> Deps:
    """Once per worker process, after the fork: connections don't survive one."""
    settings = config.load()
    return bootstrap.build(settings, engines.for_worker(settings))


if __name__ == "__main__":
    main()
