"""Checks the control plane by what its /ready reports, and the Claude key. Used by doctor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.config import Settings
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_CLAUDE = "claude"


def is_running(api: Api) -> bool:
    """Whether a control plane of SpawnAI answers on this machine."""
    return api.probe("/health") == {"status": "ok"}


def check_control_plane(api: Api, settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Every check that the control plane makes of itself, except that of the Claude key."""
    if not running:
        yield warning("control plane", "is not running", "spawnctl up")
        return
    report = api.probe("/ready")
    if report is None or "checks" not in report:
        yield problem("control plane", "doesn't say whether it is ready", _log(settings, "api"))
        return
    yield ok("control plane", "runs")
    for name, check in report["checks"].items():
        if name == _CLAUDE:
            continue
        if check["ok"]:
            yield ok(name, str(check["detail"]))
        else:
            yield problem(name, str(check["detail"]), _fix(settings, name))


def check_claude_key(api: Api, settings: Settings, *, running: bool) -> Finding:
    """Whether apps can be generated: by the running control plane, else by the settings."""
    report: Mapping[str, Any] = (api.probe("/ready") or {}) if running else {}
    check = report.get("checks", {}).get(_CLAUDE)
    if check is None:
        proxy_fault = settings.llm.find_proxy_fault(os.environ)
    else:
        proxy_fault = str(check["detail"]) if check.get("proxy") else None
    if proxy_fault:
        return problem(
            "proxy to Claude",
            proxy_fault,
            "Correct it, or unset it, in the environment in which SpawnAI starts, then:"
            " spawnctl down --keep-apps; spawnctl up --detach",
        )
    if check is not None and check.get("settings"):
        names = " and ".join(map(str, check["settings"]))
        return problem(
            "Claude key",
            str(check["detail"]),
            f"Buy credit if that is missing, or put a key that works into {names}, in"
            f" {settings.places.state_dir}/spawn.env, then:"
            " spawnctl down --keep-apps; spawnctl up --detach",
        )
    if check is not None:
        has_key, source = bool(check["ok"]), "the control plane has one"
    else:
        has_key, source = settings.llm.can_generate, "one is configured"
    if has_key:
        return ok("Claude key", source)
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
        if settings.places.redis_url:
            return "Start Redis, or correct SPAWN_REDIS_URL"
        return _log(settings, "redis")
    if name == "docker":
        return "See what doctor says of Docker; " + _log(settings, "daemon")
    if name == "agents":
        return "Look at CPU, memory and links of the machines; " + _log(settings, "agents")
    return _log(settings, name)


def _log(settings: Settings, name: str) -> str:
    files = {"proxy": "nginx", "database": "api"}
    return f"Read {settings.places.state_dir}/log/{files.get(name, name)}.log"
