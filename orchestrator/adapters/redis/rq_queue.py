"""ports.NudgeQueue over RQ, and the worker pool that executes the nudges.

A job contains one session id and nothing else: RQ keeps no retries, no results and no state for us.
If Redis loses all its data, some nudges are lost, and the daemon's nudge loop sends them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis
from rq import Queue as RqQueue
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.worker_pool import WorkerPool

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.priority import Queue

JOB = "orchestrator.entrypoints.jobs.converge"
_JOB_TIMEOUT_S = 120
_NUDGE_TTL_S = 60  # by then the nudge loop has sent the nudge again
_FAILURE_TTL_S = 3600  # by default RQ keeps a failed job for a year


class RqNudgeQueue:
    """The sender. It pools connections and is safe to use from several threads."""

    def __init__(self, connection: redis.Redis) -> None:
        self._queues = {
            queue: RqQueue(
                queue.value,
                connection=connection,
                serializer=JSONSerializer,
                default_timeout=_JOB_TIMEOUT_S,
            )
            for queue in Queue
        }

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        try:
            self._queues[queue].enqueue_call(
                JOB,
                args=(session_id,),
                result_ttl=0,
                ttl=_NUDGE_TTL_S,
                failure_ttl=_FAILURE_TTL_S,
                description=f"converge {session_id}",
            )
        except redis.RedisError as error:
            raise errors.QueueUnavailable(f"Redis does not answer: {error}") from error

    def depth(self) -> dict[Queue, int]:
        try:
            return {queue: len(rq_queue) for queue, rq_queue in self._queues.items()}
        except redis.RedisError as error:
            raise errors.QueueUnavailable(f"Redis does not answer: {error}") from error


class NudgeWorker(SimpleWorker):
    """Runs jobs in its own process: no fork per job, and no scheduler process of RQ."""

    at_start: Callable[[], object]

    def work(self, *args: Any, **options: Any) -> bool:
        type(self).at_start()
        options["with_scheduler"] = False
        return super().work(*args, **options)


def run_workers(connection: redis.Redis, count: int, at_start: Callable[[], object]) -> None:
    """Run `count` workers until SIGTERM, and replace a worker that dies within about a second.

    Each new worker calls `at_start` before its first job, to open what jobs need.
    """
    logging.getLogger("rq").setLevel(logging.WARNING)
    worker_class = type("NudgeWorker", (NudgeWorker,), {"at_start": staticmethod(at_start)})
    pool = WorkerPool(
        [queue.value for queue in Queue],
        connection=connection,
        num_workers=count,
        worker_class=worker_class,
        serializer=JSONSerializer,
    )
    pool.start(logging_level="WARNING")
