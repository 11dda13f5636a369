"""Nudges over RQ: ports.NudgeQueue, and the worker pool that carries them out.

RQ carries one session id and nothing else: no retries, no results, no state. Losing all of Redis
costs a nudge, and the daemon's nudge loop repeats it.
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
from orchestrator.domain.people.access import Queue

JOB = "orchestrator.entrypoints.jobs.converge"
_JOB_TIMEOUT_S = 120
_NUDGE_TTL_S = 60  # older ones are moot: the nudge loop has repeated them
_FAILURE_TTL_S = 3600  # RQ keeps a failed job for a year unless told otherwise


class RqNudgeQueue:
    """The sending end. Connections are pooled; safe to use from several threads."""

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
    """Runs jobs in its own process, without a fork per job and without RQ's scheduler process."""

    at_start: Callable[[], object]

    def work(self, *args: Any, **options: Any) -> bool:
        type(self).at_start()
        options["with_scheduler"] = False
        return super().work(*args, **options)


def run_workers(connection: redis.Redis, count: int, at_start: Callable[[], object]) -> None:
    """Run `count` workers until SIGTERM. A worker that dies is replaced within about a second.

    `at_start` runs in each new worker before its first job, which should find everything open.
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
