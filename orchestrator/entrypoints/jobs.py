"""The worker pool: RQ workers and the job that they run. The supervisor starts it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator import bootstrap, config, observability
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.redis import connection as redis_connection
from orchestrator.adapters.redis import rq_queue
from orchestrator.domain.ids import SessionId
from orchestrator.entrypoints.liveness import heartbeats
from orchestrator.services.deps import Deps
from orchestrator.services.sessions.looks import look

JOB_LIMIT_S = rq_queue.JOB_TIMEOUT_S + 10


def converge(session_id: str) -> None:
    """Converge one session. RQ calls this function by its name: see adapters/redis/rq_queue.py."""
    with _job.timed():
        look(_deps(), SessionId(session_id))


def main() -> None:
    """Run the workers until SIGTERM."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "worker")
    # The pool only watches its workers. They open their own connections after the fork.
    rq_queue.run_workers(
        redis_connection.connect(settings.places.effective_redis_url),
        settings.processes.workers,
        StateFolder(settings.places.state_dir).instance(),
        at_start=_start_worker,
        at_check=_pool_heart.beat,
    )


@dataclass
class Job:
    """The job that this worker runs at the moment."""

    begun_at: float | None = None

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        self.begun_at = time.monotonic()
        try:
            yield
        finally:
            self.begun_at = None

    def is_well(self) -> bool:
        """Whether RQ would not have ended it long ago, if it could."""
        begun_at = self.begun_at
        return begun_at is None or time.monotonic() - begun_at < JOB_LIMIT_S


_job = Job()
_pool_heart = heartbeats.Heart()


def _start_worker() -> None:
    heartbeats.beat_forever(_job.is_well)
    _deps()


@functools.cache
def _deps() -> Deps:
    """What the services need. Built once per worker process, after the fork: no connection may be
    shared across a fork."""
    return bootstrap.build(config.load(), bootstrap.NoEngines())


if __name__ == "__main__":
    # Workers import this module by its name. Run that copy, so that they share what it remembers.
    importlib.import_module(rq_queue.JOB.rpartition(".")[0]).main()
