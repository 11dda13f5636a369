"""What 5,000 sandboxes cost the control plane: their agents' open polls, in the process `agents`.

The process, its store and Redis are real, and so are the tokens. The agents are simulated, in a
process of their own: `python -m bench.groups.agents SOCKET FILE`. Only `_connect` knows how an
agent reaches home. The bound of 32 connections for each container doesn't count here: these agents
are in no container, so that they are taken for agents on hosts over SSH.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench import scale
from bench.folders import passable_folder
from bench.measure import Row, Section, percentile
from orchestrator.adapters import sql_store
from orchestrator.adapters.agent_socket import AgentSocket
from orchestrator.domain.people.tokens import SessionGrant, Tokens
from orchestrator.entrypoints import descriptors
from orchestrator.services.agents import assignments
from tests.e2e.installation import until
from tests.integration.redis.server import running_redis

COUNT = 5000
_WARM = 500  # of these agents; the others have a session
_WAIT_S = 25  # of one poll, as agents wait
_RAMP_S = 20.0  # all connect within this time, as agents of many hosts do after a restart
_MEASURED_AFTER_S = 2 * _WAIT_S + _RAMP_S  # each agent has been answered twice
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the open polls of all agents cost."""

    polls: int  # open at that moment
    bytes_per_agent: float
    descriptors: int  # of the process, all together
    refusals: Mapping[str, int]  # answers other than "nothing new", and lost connections
    late_p50_s: float  # how long after its time a poll was answered
    late_p95_s: float

    def row(self) -> Row:
        late = f"{self.late_p50_s * 1000:.0f} ms / {self.late_p95_s * 1000:.0f} ms"
        return Row(
            name=f"{self.polls} open polls of {COUNT} agents, in the process `agents`: memory (PSS)"
            f" for each, descriptors for all; polls were answered {late} late (p50 / p95)"
            + "".join(f"; {count} x {reason}" for reason, count in self.refusals.items()),
            p50=f"{self.bytes_per_agent / 1024:.1f} KiB",
            p95=f"{self.descriptors} fd",
            target=f"none of {COUNT} refused",
            met=not self.refusals,
        )


def measure() -> Section:
    """The polls of all agents, in one row."""
    return Section(rows=[open_polls().row()])


def open_polls() -> Cost:
    """Run `agents` alone, let all agents poll, and look at the process."""
    descriptors.raise_limit()
    with (
        passable_folder() as folder,
        _agents_process(folder) as pid,
        _simulated(folder) as agents,
    ):
        before = _pss_bytes(pid)
        _tell(agents, "go")
        polls = int(_hear(agents))
        after, opened = _pss_bytes(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))
        _tell(agents, "stop")
        seen = json.loads(_hear(agents))
    return Cost(
        polls=polls,
        bytes_per_agent=(after - before) / polls,
        descriptors=opened,
        refusals=seen["refusals"],
        late_p50_s=seen["late_p50_s"],
        late_p95_s=seen["late_p95_s"],
    )


@contextlib.contextmanager
def _agents_process(folder: Path) -> Iterator[int]:
    """The process `agents`, on a prepared state folder with the rows of COUNT sandboxes."""
    with running_redis(folder) as redis:
        state = folder / "s"
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SPAWN_")},
            "SPAWN_STATE_DIR": str(state),
            "SPAWN_REDIS_URL": redis.url,
            "SPAWN_ACCESS_LOG": "off",
            "SPAWN_LOG_LEVEL": "error",
        }
        python = [sys.executable, "-m"]
        subprocess.run(
            [*python, "orchestrator.entrypoints.prepare"], cwd=_ROOT, env=env, check=True
        )
        scale.fill(_database(state), (COUNT - _WARM) // scale.HELD, warm=_WARM)
        command = [*python, "orchestrator.entrypoints.api.agents.server"]
        with subprocess.Popen(command, cwd=_ROOT, env=env) as process:
            try:
                socket = AgentSocket(_socket(folder))
                until(lambda: socket.process() is not None, 30, "agents to answer")
                yield process.pid
            finally:
                process.terminate()


@contextlib.contextmanager
def _simulated(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process of the simulated agents. It waits to be told."""
    file = folder / "agents.json"
    file.write_text(json.dumps(_identities(folder / "s")))
    command = [sys.executable, "-m", "bench.groups.agents", str(_socket(folder)), str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _identities(state: Path) -> list[tuple[str, str]]:
    """The token of each sandbox, and the assignment that it has."""
    tokens = Tokens((state / "secret").read_bytes().strip())
    store = sql_store.open_store(_database(state), port_range=(21000, 21999))
    try:
        sandboxes = store.sandboxes.list()
    finally:
        store.close()
    identities = []
    for sandbox in sandboxes:
        present = ""
        if sandbox.session_id is not None:
            grant = SessionGrant(session_id=sandbox.session_id, attempt=1, sandbox_id=sandbox.id)
            present = assignments.assignment_id(grant)
        identities.append((tokens.for_sandbox(sandbox.id), present))
    assert len(identities) == COUNT
    return identities


class Agents:
    """All simulated agents. Each polls, and polls again when it is answered, as real ones do."""

    def __init__(self, socket: str, identities: Sequence[tuple[str, str]]) -> None:
        self._socket = socket
        self._identities = identities
        self.open = 0  # polls that have been sent and not been answered
        self.late_s: list[float] = []
        self.refusals: Counter[str] = Counter()

    async def run(self) -> None:
        """Poll until the standard input says stop. Says how many polls are open after a while."""
        agents = [
            asyncio.create_task(self._follow(number * _RAMP_S / COUNT, token, present))
            for number, (token, present) in enumerate(self._identities)
        ]
        await asyncio.sleep(_MEASURED_AFTER_S)
        print(self.open, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for agent in agents:
            agent.cancel()
        await asyncio.gather(*agents, return_exceptions=True)

    async def _follow(self, begins_in_s: float, token: str, present: str) -> None:
        await asyncio.sleep(begins_in_s)
        while True:
            try:
                status = await self._poll(token, present)
            except (OSError, EOFError) as error:
                status = type(error).__name__
            if status != "204":
                self.refusals[status] += 1
                await asyncio.sleep(1)

    async def _poll(self, token: str, present: str) -> str:
        """One poll. Returns the status of its answer."""
        request = (
            f"GET /agent/inbox?wait={_WAIT_S}&have={quote(present, safe='')} HTTP/1.1\r\n"
            f"Host: home\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        )
        begun_at = time.monotonic()
        reader, writer = await _connect(self._socket)
        try:
            writer.write(request.encode())
            self.open += 1
            try:
                head = await reader.readuntil(b"\r\n")
            finally:
                self.open -= 1
        finally:
            writer.close()
        self.late_s.append(time.monotonic() - begun_at - _WAIT_S)
        return head[9:12].decode()


async def _connect(socket: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The connection of one simulated agent to the agent socket."""
    return await asyncio.open_unix_connection(socket)


def _simulate(socket: str, file: str) -> None:
    descriptors.raise_limit()
    sys.stdin.readline()
    agents = Agents(socket, json.loads(Path(file).read_text()))
    asyncio.run(agents.run())
    seen = {
        "refusals": agents.refusals,
        "late_p50_s": percentile(agents.late_s, 0.5),
        "late_p95_s": percentile(agents.late_s, 0.95),
    }
    print(json.dumps(seen), flush=True)


def _tell(agents: subprocess.Popen[str], word: str) -> None:
    assert agents.stdin is not None
    agents.stdin.write(word + "\n")
    agents.stdin.flush()


def _hear(agents: subprocess.Popen[str]) -> str:
    assert agents.stdout is not None
    line = agents.stdout.readline()
    assert line, "the simulated agents have ended"
    return line


def _pss_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) * 1024  # type: ignore[index]


def _socket(folder: Path) -> Path:
    return folder / "s" / "agent" / "agent.sock"


def _database(state: Path) -> str:
    return f"sqlite:///{state / 'spawn.db'}"


if __name__ == "__main__":
    _simulate(*sys.argv[1:])
