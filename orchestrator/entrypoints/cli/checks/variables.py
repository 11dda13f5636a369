"""Checks that every variable that looks like a setting is one. Used by doctor, up and config."""

from __future__ import annotations

import difflib

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.entrypoints.cli.findings import Finding, ok, warning

NAME = "variables"
FILE = "spawn.env"


def check_variables(settings: Settings) -> Finding:
    """Whether a name in the environment or in the file is no setting, by a typo perhaps."""
    unknown = config.unknown_variables(settings.places.state_dir / FILE)
    if not unknown:
        return ok(NAME, "every name that begins with SPAWN_ is a setting")
    known = [name for _, field, info in config.fields() for name in config.variables(field, info)]
    nearest = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    advice = [f"{match} for {name}" for name, matches in nearest.items() for match in matches]
    meant = f"Perhaps you mean {', '.join(advice)}. " if advice else ""
    return warning(
        NAME,
        f"nothing reads {', '.join(unknown)}",
        f"{meant}`spawnctl config` lists all settings",
    )
