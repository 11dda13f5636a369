"""spawn-worker: RQ workers and the job that they run. The supervisor starts it."""

from __future__ import annotations

import functools
import time

from orchestrator import bootstrap, config, observability
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.redis import connection as redis_connection
from orchestrator.adapters.redis import rq_queue
from orchestrator.domain.ids import SessionId
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import converge as converging
from orchestrator.slim import structlog

log = structlog.get_logger()


def converge(session_id: str) -> None:
    """Converge one session. RQ calls this function by its name: see adapters/redis/rq_queue.py."""
    started_at = time.perf_counter()
    outcome = converging.converge(_deps(), SessionId(session_id))
    log.info(
        "session_converged",
        session=session_id,
        state=outcome.state,
        steps=outcome.steps,
        waits_for=outcome.waits_for or None,
        ms=round((time.perf_counter() - started_at) * 1000, 1),
    )


def main() -> None:
    """Run the workers until SIGTERM."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "worker")
    # The pool only watches its workers. They open their own connections after the fork.
    rq_queue.run_workers(
        redis_connection.connect(settings.places.effective_redis_url),
        settings.processes.workers,
        StateFolder(settings.places.state_dir).instance(),
        at_start=_deps,
    )


@functools.cache
def _deps() -> Deps:
    """What the services need. Built once per worker process, after the fork: no connection may be
    shared across a fork."""
    return bootstrap.build(config.load(), bootstrap.NoEngines())


if __name__ == "__main__":
    main()
