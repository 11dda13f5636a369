"""What the control plane carries: status polls per second, and its memory at rest."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.adapters.sql_store import open_store
from orchestrator.domain import ids
from orchestrator.domain.sessions.session import HistoryEntry, Session, SessionState, Tier, Wanted
from tests.e2e.installation import Installation

_SECONDS = 8
_CONNECTIONS = 32


def fill(spawn: Installation, count: int) -> tuple[str, list[str]]:
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


def status_per_second(spawn: Installation, cookie: str, session_ids: list[str]) -> float:
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


def memory_mb(spawn: Installation) -> dict[str, float]:
    """The memory (PSS) of each process of the control plane, in MB by name."""
    rows: dict[str, float] = {}
    pids = [spawn.supervisor_pid(), *spawn.pids("")]
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss_kb = int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        name = re.split(r"[ :]", command.split(" -m ")[-1].removeprefix("orchestrator.").strip())[0]
        name = name.rpartition("/")[2] or "nginx worker"
        rows[name] = rows.get(name, 0.0) + pss_kb / 1000
    return rows


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
