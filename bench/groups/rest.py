"""What the control plane takes at rest, and how many status polls it carries."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bench import processes, sessions
from bench.measure import Limit, Row, Section, targets
from orchestrator.adapters.sql_store import open_store
from orchestrator.domain import ids
from orchestrator.domain.sessions.session import HistoryEntry, Session, SessionState, Tier, Wanted
from tests.e2e.installation import Installation, installed

_SECONDS = 8
_CONNECTIONS = 32
STORED = 1000  # sessions that are polled
READY = 20
IDLE_S = 60


def measure() -> Section:
    """Memory and CPU at rest, and status polls."""
    # The load comes from one address: this is about what we carry, not about what one may ask.
    with installed(SPAWN_REQUESTS_PER_ADDRESS="1000000", SPAWN_SLOTS="30") as spawn:
        sessions.wait_until_warm(spawn)
        memory = processes.memory_mb(spawn)
        idle, with_apps, used = _idle(spawn)
        cookie, stored = _fill(spawn, STORED)
        sessions.wait_until_warm(spawn)
        polls = _status_per_second(spawn, cookie, stored)
    parts = ", ".join(f"{name} {size:.0f}" for name, size in sorted(memory.items()))
    return Section(
        rows=[
            _row(
                "control plane at rest, 3 warm: memory (PSS) of all processes",
                f"{sum(memory.values()):.0f} MB",
                Limit(text="<= 330 MB", figure=sum(memory.values()), most=330),
            ),
            _row(f"the same: CPU over {IDLE_S} s, of one core", f"{idle:.2f} %"),
            _row(
                f"with {READY} READY apps besides: CPU over {IDLE_S} s, of one core",
                f"{with_apps:.2f} %",
                Limit(text="<= 1 %", figure=with_apps, most=1.0),
            ),
            _row(
                f"`/api/status`, {STORED} sessions, through nginx",
                f"{polls:.0f}/s",
                Limit(text=">= 5000/s", figure=polls, least=5000),
            ),
        ],
        notes=[
            f"Memory by process, MB: {parts}.",
            f"CPU with {READY} READY apps, ms in {IDLE_S} s: {used.parts()}.",
        ],
    )


def _row(name: str, value: str, *limits: Limit) -> Row:
    target, met = targets(*limits)
    return Row(name=name, p50=value, target=target, met=met)


def _idle(spawn: Installation) -> tuple[float, float, processes.CpuTime]:
    """The per cent of a core that is used at rest: with warm sandboxes, and with apps besides."""
    idle = _used(spawn)
    apps = [sessions.make(spawn, template=sessions.STATIC) for _ in range(READY)]
    sessions.wait_until_warm(spawn, running=READY)
    with_apps = _used(spawn)
    sessions.end_all(spawn, apps)
    return idle.total_s / IDLE_S * 100, with_apps.total_s / IDLE_S * 100, with_apps


def _used(spawn: Installation) -> processes.CpuTime:
    """The CPU time of IDLE_S seconds, once what was done before has settled."""
    time.sleep(_SECONDS)
    before = processes.cpu_time(spawn)
    time.sleep(IDLE_S)
    return processes.cpu_time(spawn).since(before)


def _fill(spawn: Installation, count: int) -> tuple[str, list[str]]:
    """Add `count` sessions of one visitor to the store. Returns their cookie and the ids."""
    first = spawn.call("POST", "/api/sessions", {"template": "todo"})
    cookie = first.headers["set-cookie"].split(";")[0]
    store = open_store(f"sqlite:///{spawn.state_dir / 'spawn.db'}")
    try:
        owner = store.sessions.get(first.json["session_id"]).user_id
        sample = _sample(ids.UserId(owner))
        session_ids = []
        for _ in range(count):
            session = replace(sample, id=ids.new_session_id(), slug=ids.new_slug())
            store.sessions.add(session, None, max_active=10**6)
            session_ids.append(str(session.id))
    finally:
        store.close()
    spawn.call("DELETE", f"/api/sessions/{first.json['session_id']}", headers={"Cookie": cookie})
    return cookie, session_ids


def _status_per_second(spawn: Installation, cookie: str, session_ids: list[str]) -> float:
    """Requests per second of GET /api/status/{id}: full responses, through nginx, over keep-alive
    connections. Raises AssertionError if a response is an error."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        quoted = ",".join(f'"{session_id}"' for session_id in session_ids)
        script.write(
            f"local ids = {{{quoted}}}\nlocal n = 0\n"
            "request = function()\n  n = n % #ids + 1\n"
            f'  return wrk.format("GET", "/api/status/" .. ids[n], {{Cookie = "{cookie}"}})\n'
            "end\n"
        )
        script.flush()
        url = f"http://127.0.0.1:{spawn.http_port}"
        command = [wrk, "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}s", "-s", script.name, url]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in text, text
    match = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert match is not None, text
    return float(match[1])


def _sample(owner: ids.UserId) -> Session:
    """A READY session that is not due for a day."""
    now = datetime.now(UTC)
    later = now + timedelta(days=1)
    return Session(
        id=ids.new_session_id(),
        user_id=owner,
        tier=Tier.FREE,
        prompt="a to-do list for a small team that plants trees",
        template="todo",
        bundle=None,
        state=SessionState.READY,
        wanted=Wanted.RUNNING,
        slug=ids.new_slug(),
        sandbox_id=None,
        attempt=1,
        version=1,
        report=None,
        failure=None,
        ttl_s=86400,
        due_at=later,
        deadline_at=None,
        expires_at=later,
        created_at=now,
        updated_at=now,
        history=tuple(
            HistoryEntry(state=state, at=now)
            for state in (SessionState.QUEUED, SessionState.PROVISIONING, SessionState.READY)
        ),
    )
