"""ports.NudgeQueue over RQ, and the worker pool that executes the nudges.

A job contains one session id and nothing else: RQ keeps no retries, no results and no state for us.
Its id names session and queue, so that equal nudges are one while it waits. A worker deletes it
before it runs it: whatever changes from then on needs another look. If Redis loses all its data,
some nudges are lost, and the daemon's nudge loop sends them again. A nudge that Redis does not take
goes another way.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis.client import Pipeline
from rq import Queue as RqQueue
from rq import SimpleWorker
from rq.exceptions import DuplicateJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.worker import WorkerStatus
from rq.worker_pool import WorkerPool

from orchestrator.adapters.redis.connection import TIMEOUT_S, connect, prefix_of
from orchestrator.adapters.redis.sender import BackgroundSender
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.priority import Queue
from orchestrator.slim import structlog

JOB = "orchestrator.entrypoints.jobs.converge"
JOB_TIMEOUT_S = 120
# Somebody waits for what a nudge moves. If Redis is merely slow, two look at the session, which is
# harmless.
_SEND_TIMEOUT_S = 0.25
# By then the daemon has looked at the session itself. A worker that is killed just after it took a
# job leaves the job's id behind, which keeps equal nudges out for this long.
_NUDGE_TTL_S = 20
# RQ waits for a job for 15 s less than this, and for an answer for 10 s longer than that. So a
# worker whose connection was cut silently hears again after 15 s at most.
_WORKER_TTL_S = 20
_RECONNECT_MAX_S = 2.0
_HEARTBEAT_S = 10.0  # less than the record of a worker lives

log = structlog.get_logger()


class RqNudgeQueue:
    """The sender. It pools connections and is safe to use from several threads.

    A nudge is sent in the background: its caller never waits for Redis. If Redis does not take it
    in time, `instead` is called with its session.
    """

    def __init__(
        self,
        url: str,
        installation: str,
        instead: Callable[[SessionId], object],
        job: str = JOB,
    ) -> None:
        """`job` is the path of the function that workers call with a session id."""
        self._instead = instead
        self._job = job
        self._sender = BackgroundSender()
        self._queues = _queues(connect(url, socket_timeout=_SEND_TIMEOUT_S), installation)
        self._patient = connect(url, socket_timeout=TIMEOUT_S)

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        def enqueue() -> None:
            with contextlib.suppress(DuplicateJobError):  # an equal nudge waits already
                self._queues[queue].enqueue_call(
                    self._job,
                    args=(session_id,),
                    ttl=_NUDGE_TTL_S,
                    description=f"converge {session_id}",
                    job_id=f"{queue.value}-{session_id}",
                    unique=True,
                )

        key = f"{queue.value} {session_id}"
        self._sender.send(key, enqueue, lambda: self._instead(session_id))

    def depth(self) -> dict[Queue, int]:
        try:
            # In one answer, which has to come within the time for one.
            with self._patient.pipeline() as pipeline:
                for queue in Queue:
                    pipeline.llen(self._queues[queue].key)
                return dict(zip(Queue, pipeline.execute(), strict=True))
        except redis.RedisError as error:
            raise errors.QueueUnavailable(f"Redis does not answer: {error}") from error

    def flush(self, timeout_s: float) -> bool:
        """Wait until all nudges are sent or diverted. Returns False if that takes longer."""
        return self._sender.flush(timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._queues[Queue.LOW].connection.close()
        self._patient.close()


class NudgeWorker(SimpleWorker):
    """Runs jobs in its own process: no fork per job, and no scheduler process of RQ."""

    at_start: Callable[[], object]
    max_connection_wait_time = _RECONNECT_MAX_S
    _beaten_at = float("-inf")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "worker_ttl": _WORKER_TTL_S})

    def execute_job(self, job: Job, queue: RqQueue) -> None:  # noqa: ARG002 - RQ's signature
        """Forget the job, then run it. RQ's own method keeps it until it has ended, with records of
        its execution that nobody reads."""
        self.set_state(WorkerStatus.BUSY)  # else SIGTERM interrupts the job
        self.connection.delete(job.key)
        try:
            with self.death_penalty_class(JOB_TIMEOUT_S, JobTimeoutException, job_id=job.id):
                job.perform()
        except Exception:
            log.exception("nudge_failed", job=job.id)
        self.set_state(WorkerStatus.IDLE)

    # RQ tells Redis a dozen things about a worker with each job. Nobody reads them: they took more
    # time than a look at a session.

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:  # noqa: ARG002 - RQ's
        self._state = state

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        if pipeline is not None or time.monotonic() - self._beaten_at >= _HEARTBEAT_S:
            self._beaten_at = time.monotonic()
            super().heartbeat(timeout, pipeline)

    def check_for_suspension(self, burst: bool) -> None:
        """Nobody suspends workers."""

    def subscribe(self) -> None:
        """Nobody sends them commands: a thread would wait for them."""

    def work(self, *args: Any, **options: Any) -> bool:
        type(self).at_start()
        self._await_redis()
        options["with_scheduler"] = False
        return super().work(*args, **options)

    def _await_redis(self) -> None:
        """Wait until Redis takes a write. RQ ends a worker to which Redis says no: it is read-only,
        full, or allows us too little. Its successor waits here, and doesn't end at once, too."""
        is_refused = False
        while True:
            try:
                self.connection.set(f"{self.key}:begins", 1, ex=_WORKER_TTL_S)
            except redis.RedisError as error:
                if not is_refused:
                    is_refused = True
                    log.error("redis_refuses", error=f"{type(error).__name__}: {error}")
                    for number in (signal.SIGINT, signal.SIGTERM):
                        signal.signal(number, signal.SIG_DFL)  # still the pool's own
                time.sleep(_RECONNECT_MAX_S)
            else:
                break
        if is_refused:
            log.info("redis_takes_writes_again")


class _NudgeQueue(RqQueue):
    """Adds a job by one question to Redis."""

    def enqueue_job(
        self,
        job: Job,
        pipeline: Pipeline | None = None,
        at_front: bool = False,
        unique: bool = False,
    ) -> Job:
        """RQ's own first notes each time that there is this queue, which nobody reads."""
        return self._enqueue_async_job(job, pipeline=pipeline, at_front=at_front, unique=unique)


def _queues(connection: redis.Redis, installation: str) -> Mapping[Queue, RqQueue]:
    return {
        queue: _NudgeQueue(
            _queue_name(queue, installation),
            connection=connection,
            serializer=JSONSerializer,
            default_timeout=JOB_TIMEOUT_S,
        )
        for queue in Queue
    }


def _queue_name(queue: Queue, installation: str) -> str:
    return prefix_of(installation) + queue.value


class NudgePool(WorkerPool):
    """Calls `at_check` at each look at its workers."""

    at_check: Callable[[], object]

    def check_workers(self, respawn: bool = True) -> None:
        type(self).at_check()
        super().check_workers(respawn=respawn)


def run_workers(
    connection: redis.Redis,
    count: int,
    installation: str,
    at_start: Callable[[], object],
    at_check: Callable[[], object] = lambda: None,
) -> None:
    """Run `count` workers until SIGTERM, and replace a worker that dies within about a second.

    Each new worker calls `at_start` before its first job, to open what jobs need. `at_check` is
    called each second: the pool looks after its workers.
    """
    logging.getLogger("rq").setLevel(logging.WARNING)
    worker_class = type("NudgeWorker", (NudgeWorker,), {"at_start": staticmethod(at_start)})
    pool_class = type("NudgePool", (NudgePool,), {"at_check": staticmethod(at_check)})
    pool = pool_class(
        [_queue_name(queue, installation) for queue in Queue],
        connection=connection,
        num_workers=count,
        worker_class=worker_class,
        serializer=JSONSerializer,
    )
    pool.start(logging_level="WARNING")
