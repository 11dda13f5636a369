"""Doctor's look at the control plane: what /ready says, and the Claude key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.config import Settings
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_CLAUDE = "claude"


def answers(api: Api) -> bool:
    """Whether a control plane of ours runs here."""
    return api.probe("/health") == {"status": "ok"}


def plane(api: Api, settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Each check that the control plane makes of itself."""
    if not running:
        yield warning("control plane", "is not running", "spawnctl up")
        return
    said = api.probe("/ready")
    if said is None or "checks" not in said:
        yield problem("control plane", "doesn't say whether it is ready", _log(settings, "api"))
        return
    yield ok("control plane", "runs")
    for name, check in said["checks"].items():
        if name == _CLAUDE:
            continue
        if check["ok"]:
            yield ok(name, str(check["detail"]))
        else:
            yield problem(name, str(check["detail"]), _fix(settings, name))


def claude(api: Api, settings: Settings, *, running: bool) -> Finding:
    """Whether apps can be generated: as the control plane sees it, when there is one."""
    said: Mapping[str, Any] = (api.probe("/ready") or {}) if running else {}
    seen = said.get("checks", {}).get(_CLAUDE)
    if seen is not None and seen.get("settings"):
        names = " and ".join(map(str, seen["settings"]))
        return problem(
            "Claude key",
            str(seen["detail"]),
            f"Put a key that works into {names}, in {settings.places.state_dir}/spawn.env, then:"
            " spawnctl down --keep-apps; spawnctl up --detach",
        )
    if seen is not None:
        present, where = bool(seen["ok"]), "the control plane has one"
    else:
        present, where = settings.llm.can_generate, "one is configured"
    if present:
        return ok("Claude key", where)
    return warning(
        "Claude key",
        "there is none: only templates can be started",
        f"Put ANTHROPIC_API_KEY=... into {settings.places.state_dir}/spawn.env (mode 600), then:"
        " spawnctl down --keep-apps; spawnctl up --detach",
    )


def _fix(settings: Settings, name: str) -> str:
    if name == "database" and settings.places.database_url:
        return "Start the database, or correct SPAWN_DATABASE_URL"
    if name == "redis":
        wanted = "SPAWN_REDIS_URL" if settings.places.redis_url else ""
        return f"Start Redis, or correct {wanted}" if wanted else _log(settings, "redis")
    if name == "docker":
        return "See what doctor says of Docker; " + _log(settings, "daemon")
    return _log(settings, name)


def _log(settings: Settings, name: str) -> str:
    files = {"proxy": "nginx", "database": "api"}
    return f"Read {settings.places.state_dir}/log/{files.get(name, name)}.log"
