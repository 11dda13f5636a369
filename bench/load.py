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
from orchestrator.domain.sessions.session import Entered, Session, SessionState, Tier, Wanted
from tests.e2e.installation import Installation

_SECONDS = 8
_CONNECTIONS = 32


def fill(one: Installation, count: int) -> tuple[str, list[str]]:
    """Put sessions of one visitor into the store; their cookie and their ids."""
    first = one.call("POST", "/api/sessions", {"template": "todo"})
    cookie = first.headers["set-cookie"].split(";")[0]
    store = open_store(f"sqlite:///{one.state_dir / 'spawn.db'}")
    try:
        owner = store.sessions.get(first.json["session_id"]).user_id
        model = _sample(ids.UserId(owner))
        made = []
        for _ in range(count):
            new = replace(model, id=ids.new_session_id(), slug=ids.new_slug())
            made.append(str(store.sessions.add(new, None, max_active=10**6).id))
    finally:
        store.close()
    one.call("DELETE", f"/api/sessions/{first.json['session_id']}", headers={"Cookie": cookie})
    return cookie, made


def status_per_second(one: Installation, cookie: str, session_ids: list[str]) -> float:
    """GET /api/status/{id}, whole answers, through nginx, over keep-alive connections.
    Raises AssertionError when any answer was an error."""
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
        url = f"http://127.0.0.1:{one.http_port}"
        command = [wrk, "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}s", "-s", script.name, url]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in text, text
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert found is not None, text
    return float(found[1])


def memory_mb(one: Installation) -> dict[str, float]:
    """PSS of every process of the control plane, MB by name."""
    rows: dict[str, float] = {}
    pids = [one.supervisor_pid(), *one.pids("")]
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss_kb = int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        name = re.split(r"[ :]", command.split(" -m ")[-1].removeprefix("orchestrator.").strip())[0]
        name = name.rpartition("/")[2] or "nginx worker"
        rows[name] = rows.get(name, 0.0) + pss_kb / 1000
    return rows


def _sample(owner: ids.UserId) -> Session:
    """A session that runs and that nothing is due for."""
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
            Entered(state=state, at=now)
            for state in (SessionState.QUEUED, SessionState.PROVISIONING, SessionState.READY)
        ),
    )
