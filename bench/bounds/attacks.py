"""The attacks, in the order of the runs: what each does, for how long, and what bounds it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.bounds import apps, troubles
from bench.bounds.visitors import Visitor
from bench.bounds.witnesses import containers_by_session
from bench.bounds.world import Kind, World
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.people.tokens import SessionGrant, Tokens
from tests.e2e.installation import ROOT, Installation, until

CONNECTIONS = 1500
UPLOADS = 200
_SURPLUS_S = 60  # how much longer than the attack its processes may take to end
_STARTED_S = 60

# Returns what was seen, as text for the table. Called when the attack's time is over.
Tell = Callable[[], str]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One row of the table."""

    key: str  # one letter, for --only
    name: str
    seconds: float
    bound: str  # what bounds it: settings, or where the limits stand
    run: Callable[[World, float], AbstractContextManager[Tell]]
    kind: Kind = Kind.ORDINARY
    refusal: str = ""  # new sessions are refused with this, by design; they start afterwards


@contextlib.contextmanager
def idle_connections(world: World, seconds: float) -> Iterator[Tell]:
    with (
        _attacker(world) as (_, session_id),
        _intruder(world, session_id, "idle", str(CONNECTIONS), seconds) as tell,
    ):
        yield tell


@contextlib.contextmanager
def unfinished_uploads(world: World, seconds: float) -> Iterator[Tell]:
    with _attacker(world) as (_, session_id):
        token = _token(world.spawn, session_id)
        with _intruder(world, session_id, "uploads", str(UPLOADS), seconds, token) as tell:
            yield tell


@contextlib.contextmanager
def manifest_bomb(world: World, seconds: float) -> Iterator[Tell]:
    """Only a session that is GENERATING may upload: this one's model takes very long."""
    owner, prompt = Visitor(world.spawn), f"an app that is never finished, in {seconds} s"
    apps.write_for_ever(world.provider, prompt, seconds + _SURPLUS_S)
    session_id = owner.create(prompt=prompt)
    try:
        until(
            lambda: world.spawn.status(session_id)["status"] == "generating",
            _STARTED_S,
            "the attacker's session to be generating",
        )
        token = _token(world.spawn, session_id)
        with _intruder(world, session_id, "bomb", "1", seconds, token) as tell:
            yield tell
    finally:
        owner.end(session_id)


@contextlib.contextmanager
def long_polls(world: World, seconds: float) -> Iterator[Tell]:
    with _attacker(world) as (owner, session_id):
        path = f"/api/status/{session_id}"
        tag = owner.call("GET", path).headers["etag"]
        command = [
            *(sys.executable, "-m", "bench.bounds.crowd", "--port", str(world.spawn.http_port)),
            *("--path", f"{path}?wait=60", "--cookie", owner.cookie, "--tag", tag),
            *("--count", str(CONNECTIONS), "--seconds", str(seconds)),
        ]
        with _process(command, seconds) as tell:
            yield tell


@contextlib.contextmanager
def crash_loop(world: World, seconds: float) -> Iterator[Tell]:
    owner, prompt = Visitor(world.spawn), f"an app that kills its agent, for {seconds} s"
    apps.write_crasher(world.provider, prompt)
    session_id = owner.create(prompt=prompt)

    def tell() -> str:
        session = world.spawn.admin(f"sessions/{session_id}")
        states = [entry["state"] for entry in session["history"]]
        return f"{states.count('ready')} times ready, then {session['status']}"

    try:
        yield tell
    finally:
        owner.end(session_id)


ALL = (
    Attack(
        key="a",
        name=f"{CONNECTIONS} idle agent connections from one sandbox",
        seconds=300,
        bound="32 connections for each sandbox; 5 s for a head",
        run=idle_connections,
    ),
    Attack(
        key="b",
        name=f"{CONNECTIONS} long polls of one visitor",
        seconds=60,
        bound="20 polls for each visitor; SPAWN_POLLS_PER_ADDRESS, SPAWN_REQUESTS_PER_ADDRESS",
        run=long_polls,
    ),
    Attack(
        key="c",
        name=f"{UPLOADS} unfinished uploads from one sandbox, half with a valid token",
        seconds=60,
        bound="401 from the head; one transfer for each sandbox; 60 s for a body",
        run=unfinished_uploads,
    ),
    Attack(
        key="d",
        name="a bundle with a manifest of 20 MiB, again and again",
        seconds=30,
        bound="64 KiB of manifest; two inspections at a time",
        run=manifest_bomb,
    ),
    Attack(
        key="e",
        name="a removal that hangs",
        seconds=120,
        bound="a step is leased; four removals at a time on each host",
        run=troubles.hanging_removal,
    ),
    Attack(
        key="f",
        name="an app that kills its agent, again and again",
        seconds=600,
        bound="pauses up to 300 s; no warm sandbox from the third time on; ten times an hour",
        run=crash_loop,
    ),
    Attack(
        key="g",
        name="a host whose shell greets",
        seconds=50,
        bound="facts are read between markers; that host alone is SUSPECT, or LOST",
        run=troubles.greeting_host,
    ),
    Attack(
        key="h",
        name="a full disk",
        seconds=300,
        bound="SPAWN_DISK_FLOOR_MB",
        run=troubles.full_disk,
        refusal="503 storage_low",
    ),
    Attack(
        key="i",
        name="Redis behind a network that drops every packet",
        seconds=60,
        bound="a nudge that is not taken within 0.25 s goes to the daemon",
        run=troubles.black_hole,
        kind=Kind.OUTSIDE,
    ),
    Attack(
        key="j",
        name="the clock 3 minutes forward",
        seconds=60,
        bound="intervals by the application's own time (ADR 0032)",
        run=troubles.clock_jump,
        kind=Kind.OUTSIDE,
    ),
)


@contextlib.contextmanager
def _attacker(world: World) -> Generator[tuple[Visitor, str]]:
    """A visitor with a READY app, which ends afterwards, and with it all that runs inside."""
    owner = Visitor(world.spawn)
    session_id = owner.ready_app(template="notes")["session_id"]
    try:
        yield owner, session_id
    finally:
        owner.end(session_id)


@contextlib.contextmanager
def _intruder(
    world: World, session_id: str, kind: str, count: str, seconds: float, token: str = ""
) -> Iterator[Tell]:
    """Run intruder.py inside this session's sandbox."""
    container_id = containers_by_session(world.spawn)[session_id]
    source = (Path(__file__).parent / "intruder.py").read_text()
    command = ["docker", "exec", container_id, "python3", "-c", source]
    before = _refusals(world.spawn)
    with _process([*command, kind, count, str(seconds), token], seconds) as tell_own:

        def tell() -> str:
            own = tell_own()
            refused = _refusals(world.spawn)
            counts = {reason: refused[reason] - before.get(reason, 0) for reason in refused}
            return own + "; refused: " + _listed(counts)

        yield tell


@contextlib.contextmanager
def _process(command: list[str], seconds: float) -> Iterator[Tell]:
    """A process that prints its counts as JSON at its end, by itself after so many seconds."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:

        def tell() -> str:
            try:
                output, _ = process.communicate(timeout=seconds + _SURPLUS_S)
            except subprocess.TimeoutExpired:
                return "it has not ended"
            return _listed(json.loads(output)) if output else f"it ended with {process.returncode}"

        try:
            yield tell
        finally:
            process.kill()


def _token(spawn: Installation, session_id: str) -> str:
    """The token of a session, which its app can read from the agent's memory."""
    tokens = Tokens((spawn.state_dir / "secret").read_bytes().strip())
    session = spawn.admin(f"sessions/{session_id}")
    grant = SessionGrant(
        session_id=SessionId(session_id),
        attempt=session["attempt"],
        sandbox_id=SandboxId(session["sandbox_id"]),
    )
    return tokens.for_session(grant)


def _refusals(spawn: Installation) -> dict[str, int]:
    """How often the agents' process has refused something, by reason."""
    pattern = r'^spawn_agent_refusals_total\{reason="([^"]+)"\} (\S+)$'
    text = spawn.call("GET", "/metrics").text
    return {name: int(float(count)) for name, count in re.findall(pattern, text, re.MULTILINE)}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "nothing"
