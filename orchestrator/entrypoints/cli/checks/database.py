"""Checks whether this release and this installation can use the database. Changes nothing.

Used by `spawnctl doctor` while nothing runs here.
"""

from __future__ import annotations

from orchestrator import small_files
from orchestrator.adapters.sql_store import upgrade
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.entrypoints.cli.findings import Finding, ok, problem

_FIXES = {
    "database_newer": "Start the newer release, or restore the backup from before the upgrade",
    "database_taken": "Set SPAWN_DATABASE_URL to a database of its own",
    "database_pooler": "Set pool_mode = transaction in the pooler's settings",
}


def check_database(settings: Settings) -> Finding:
    """Whether the next `spawnctl up` can use the database."""
    try:
        installation = small_files.read_text(settings.places.state_dir / "instance").strip()
    except OSError:
        installation = ""  # there is none yet, or another check reports the folder
    try:
        version = upgrade.inspect(settings.places.effective_database_url, installation)
    except errors.SpawnError as error:
        fix = _FIXES.get(error.code, "Start the database, or correct SPAWN_DATABASE_URL")
        return problem("database", str(error), fix, error.code)
    return ok("database", f"its schema is {version}" if version else "will be made by `up`")
