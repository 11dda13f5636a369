"""What an installation has at rest: nothing else may be left after a fault."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.installation import Installation, until

_BACK_S = 60
_SLUG = re.compile(r"[a-z2-7]{16}")
Check = Callable[[], str]  # what is wrong; "": nothing
_ENDED = {"destroyed", "failed"}
_PROCESSES = (  # not nginx's workers: old ones stay until their connections end
    "agents.server",
    "api.server",
    "nginx: master",
    "entrypoints.jobs",
    "entrypoints.daemon",
    "redis-server",
    "push_image",
)


def await_rest(
    spawn: Installation,
    sessions: Sequence[str],
    processes: Counter[str],
    *others: Check,
    containers: Callable[[], set[str]] | None = None,
) -> None:
    """Wait until all is well and only these sessions, with their apps, and warm sandboxes are left.

    `processes` are those of an earlier rest. `others` are more checks. `containers` returns the
    sandboxes that have one, on hosts that aren't this machine.
    """
    problems: list[str] = []

    def is_at_rest() -> bool:
        problems[:] = filter(None, [_readiness(spawn)])
        if not problems:
            present = containers() if containers else _containers(spawn)
            problems[:] = filter(
                None,
                [
                    _pool(spawn, sessions, present),
                    _routes(spawn),
                    _processes(spawn, processes),
                    *(check() for check in others),
                ],
            )
        return not problems

    try:
        until(is_at_rest, _BACK_S, "rest")
    except AssertionError:
        raise AssertionError(f"left after {_BACK_S} s: {problems}\n{spawn.logs()}") from None


def end_others(spawn: Installation, *kept: str) -> None:
    """End all sessions but these: a test that failed may have left some."""
    listed = spawn.call_patiently("GET", "/api/admin/sessions", key=spawn.operator_key).json
    for session in listed["sessions"]:
        if session["session_id"] not in kept and session["status"] not in _ENDED:
            path = f"/api/sessions/{session['session_id']}"
            spawn.call_patiently("DELETE", path, key=spawn.operator_key)


def _readiness(spawn: Installation) -> str:
    response = spawn.call("GET", "/ready")
    return "" if response.status == 200 else response.text


def _pool(spawn: Installation, sessions: Sequence[str], present: set[str]) -> str:
    pool = spawn.call_patiently("GET", "/api/admin/pool", key=spawn.operator_key).json
    sandboxes = pool["sandboxes"]
    states = Counter(sandbox["state"] for sandbox in sandboxes)
    expected = {"claimed": len(sessions), "warm": pool["warm_target"]}
    if states != Counter(expected):
        return f"sandboxes {dict(states)}, not {expected}"
    owners = {sandbox["session_id"] for sandbox in sandboxes} - {None}
    if owners != set(sessions):
        return f"sandboxes of {owners}"
    ids = {sandbox["sandbox_id"] for sandbox in sandboxes}
    if ids != present:
        return f"containers {present}, not {ids}"
    if any((pool["queues"] or {"none": 1}).values()):
        return f"nudges {pool['queues']}"
    return ""


def _containers(spawn: Installation) -> set[str]:
    """The sandbox of each container, or the container's name: a probe that is left is not rest."""
    return {item.labels.get("ai.spawn.sandbox", item.name) for item in spawn.containers()}


def _routes(spawn: Installation) -> str:
    """Every route leads to a sandbox of the store, and each of those has one."""
    slugs = {sandbox["slug"] for sandbox in spawn.admin("pool")["sandboxes"]}
    links = (spawn.state_dir / "nginx" / "routes").iterdir()
    published = {link.name for link in links if _SLUG.fullmatch(link.name)}
    return "" if published == slugs else f"routes {published}, not {slugs}"


def _processes(spawn: Installation, wanted: Counter[str]) -> str:
    counts = count_processes(spawn)
    return "" if counts == wanted else f"processes {counts}, not {wanted}"


def count_processes(spawn: Installation) -> Counter[str]:
    """How many there are of each kind, and of those that wait to be buried."""
    counts = Counter({name: len(spawn.pids(name)) for name in _PROCESSES})
    counts["zombies"] = sum(state_of(pid) == "Z" for pid in spawn.pids(""))
    return counts


def state_of(pid: int) -> str:
    """As in `ps`: R, S, D, Z and so on. "" if the process has gone."""
    return _state_in(Path(f"/proc/{pid}/stat"))


def states_of_threads(pid: int) -> list[str]:
    """The same of each thread of a process. None if it has gone."""
    return [_state_in(path) for path in Path("/proc").glob(f"{pid}/task/*/stat")]


def _state_in(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().rpartition(")")[2].split()[0]
    return ""


def redis_keys(client: Any) -> Check:
    """A check that no nudge and nothing of unknown kind is left in Redis."""

    def check() -> str:
        left = [key.decode() for key in client.keys("rq:job:*")]
        return f"keys {left}" if left else ""

    return check
