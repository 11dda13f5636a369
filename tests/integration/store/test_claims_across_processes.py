"""Claims and placements by concurrent processes: each sandbox and each slot is given once."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import STARTS_AT_ONCE, STARTS_IN_LINE
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Session, SessionState
from tests.fakes import samples
from tests.fakes.samples import NOW, later

ROOT = Path(__file__).parents[3]
PROCESSES = 8
SESSIONS = 100
WARM = 60
DEADLINE_S = 60


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    store = sql_store.open_store(store_url)
    try:
        yield store
    finally:
        store.close()


def test_every_warm_sandbox_is_claimed_by_exactly_one_session(
    store: SqlStore, store_url: str
) -> None:
    store.hosts.put(samples.host(slots=WARM))
    warm = {_warm_up(store, number) for number in range(WARM)}
    queued = _queue(store, SESSIONS)

    outcomes = _race("claim", store_url, [queued[n::PROCESSES] for n in range(PROCESSES)])

    assert outcomes == Counter(got=WARM, none=SESSIONS - WARM)
    sandboxes = store.sandboxes.list(states=[SandboxState.CLAIMED])
    assert {sandbox.id for sandbox in sandboxes} == warm
    sessions = {session.id: session for session in store.sessions.list(limit=SESSIONS)}
    served = [session for session in sessions.values() if session.sandbox_id is not None]
    assert len(served) == WARM
    assert {session.sandbox_id for session in served} == warm
    for sandbox in sandboxes:
        assert sandbox.session_id is not None
        assert sessions[sandbox.session_id].sandbox_id == sandbox.id
        assert sessions[sandbox.session_id].state is SessionState.PROVISIONING
    unserved = [session for session in sessions.values() if session.sandbox_id is None]
    assert {session.state for session in unserved} == {SessionState.QUEUED}


def test_a_session_that_all_processes_serve_takes_one_sandbox(
    store: SqlStore, store_url: str
) -> None:
    store.hosts.put(samples.host(slots=PROCESSES))
    for number in range(PROCESSES):
        _warm_up(store, number)
    share = _queue(store, 20)[:1]

    outcomes = _race("claim", store_url, [share] * PROCESSES)

    assert outcomes["got"] == 1
    # A process that finds all sandboxes locked by the others gets none. It would retry.
    assert outcomes["stale"] + outcomes["none"] == PROCESSES - 1
    assert len(store.sandboxes.list(states=[SandboxState.CLAIMED])) == 1
    assert len(store.sandboxes.list(states=[SandboxState.WARM])) == PROCESSES - 1


def test_slots_and_ports_are_never_given_twice(store: SqlStore, store_url: str) -> None:
    slots = [7, 5, 9, 2]
    for count in slots:
        store.hosts.put(samples.host(slots=count))
    queued = _queue(store, SESSIONS)

    outcomes = _race("place", store_url, [queued[n::PROCESSES] for n in range(PROCESSES)])

    assert outcomes == Counter(got=sum(slots), none=SESSIONS - sum(slots))
    assert [load.free for load in store.hosts.loads()] == [0] * len(slots)
    placed = store.sandboxes.list()
    assert len({(sandbox.host_id, sandbox.port) for sandbox in placed}) == sum(slots)
    served = {
        session.sandbox_id: session.id
        for session in store.sessions.list(states=[SessionState.PROVISIONING])
    }
    assert served == {sandbox.id: sandbox.session_id for sandbox in placed}


def test_concurrent_starts_are_limited_across_processes(store: SqlStore, store_url: str) -> None:
    store.hosts.put(samples.host(slots=50))
    queued = _queue(store, PROCESSES)
    outcomes = _race("place_only", store_url, [[session_id] for session_id in queued])
    line = STARTS_AT_ONCE + STARTS_IN_LINE
    assert outcomes == Counter(got=line, none=PROCESSES - line)


def _warm_up(store: SqlStore, number: int) -> ids.SandboxId:
    placed = store.sandboxes.place(samples.new_sandbox(), later(number))
    store.sandboxes.agent_seen(placed.id, NOW)
    store.sandboxes.mark_routes(samples.routes_of(placed), [], NOW)
    return placed.id


def _queue(store: SqlStore, count: int) -> list[ids.SessionId]:
    return [
        store.sessions.add(samples.session(), None, max_active=SESSIONS).id for _ in range(count)
    ]


def _race(job: str, url: str, shares: Sequence[Sequence[ids.SessionId]]) -> Counter[str]:
    """Run one process per share, all at the same time. Returns the sum of their outcomes."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", __name__, job, url],
        input=json.dumps(shares),
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=2 * DEADLINE_S,
    )
    assert result.returncode == 0, result.stderr
    return Counter(json.loads(result.stdout))


def _main(job: str, url: str, shares: Sequence[Sequence[str]]) -> None:
    """Run the race. This process has one thread and no connection: it may fork."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(shares))
    results = context.SimpleQueue()
    racers = [
        context.Process(target=_run, args=(job, url, share, start, results), daemon=True)
        for share in shares
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(DEADLINE_S)
    assert [racer.exitcode for racer in racers] == [0] * len(racers)
    json.dump(sum((results.get() for _ in racers), Counter()), sys.stdout)


def _run(job: str, url: str, share: Sequence[str], start: Barrier, results: Any) -> None:
    store = sql_store.open_store(url, pool_size=1)
    try:
        sessions = [store.sessions.get(ids.SessionId(session_id)) for session_id in share]
        start.wait(DEADLINE_S)
        results.put(Counter(_try(store, job, session) for session in sessions))
    finally:
        store.close()


def _try(store: SqlStore, job: str, session: Session) -> str:
    wanted = session.transition(SessionState.PROVISIONING, NOW)
    try:
        if job == "claim":
            return "none" if store.sandboxes.claim(wanted, NOW) is None else "got"
        return _place(store, wanted, settle=job == "place")
    except errors.StaleWrite:
        return "stale"


def _place(store: SqlStore, wanted: Session, *, settle: bool) -> str:
    """Try until there is a slot, or no host has one. With `settle` the sandbox starts at once, and
    the limit of concurrent starts is no reason to give up."""
    new = samples.new_sandbox(session_id=wanted.id)
    placing = replace(wanted, sandbox_id=new.id, slug=new.slug)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            store.sandboxes.place_for(placing, new, NOW)
        except errors.NoCapacity:
            if not settle or not any(load.free for load in store.hosts.loads()):
                return "none"
        else:
            if settle:
                store.sandboxes.agent_seen(new.id, NOW)
            return "got"
    return "gave up"


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], json.load(sys.stdin))
