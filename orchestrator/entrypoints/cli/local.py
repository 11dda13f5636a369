"""The installation on this machine: its settings, its API's address, its key. Used by commands."""

from __future__ import annotations

from pathlib import Path

import pydantic

from orchestrator import config, small_files
from orchestrator.config import Settings
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

OPERATOR_KEY = "operator.key"


def settings() -> Settings:
    """Load the settings. Raises Problem (invalid_settings).

    It names each wrong setting and never its value: a secret in the wrong variable must not reach
    the screen.
    """
    try:
        return config.load()
    except pydantic.ValidationError as error:
        messages = [
            f"{_variable(str(detail['loc'][0]) if detail['loc'] else '')}: {detail['msg']}"
            for detail in error.errors(
                include_input=False, include_url=False, include_context=False
            )
        ]
        raise Problem(
            Exit.USAGE,
            "invalid_settings",
            "; ".join(messages),
            "Correct it in the environment, or in the state folder's spawn.env.",
        ) from None


def api_url(settings: Settings) -> str:
    """Where the proxy of this machine's control plane listens."""
    address = settings.addresses.probe_address
    host = f"[{address}]" if ":" in address else address  # IPv6
    return f"http://{host}:{settings.addresses.http_port}"


def api_key(settings: Settings) -> str:
    """SPAWN_API_KEY, else the operator key in the state folder, else "". Raises Problem
    (key_unreadable, key_malformed)."""
    configured = settings.people.api_key.get_secret_value()
    if configured:
        return _check_key(configured, "SPAWN_API_KEY")
    path = settings.places.state_dir / OPERATOR_KEY
    try:
        return _check_key(small_files.read_text(path), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise Problem(
            Exit.UNAUTHORIZED,
            "key_unreadable",
            f"the operator key in {path} can't be read: {error.strerror}",
            "Run as the user who started SpawnAI, or set SPAWN_API_KEY.",
        ) from error


def existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _check_key(key: str, source: str) -> str:
    """Strip the key. Refuse it here if no header can hold it: the HTTP library would quote the
    header in its error, and so show the key."""
    key = key.strip()
    if key.isascii() and key.isprintable() and " " not in key:
        return key
    raise Problem(
        Exit.UNAUTHORIZED,
        "key_malformed",
        f"the key in {source} has characters that no key has",
        "Copy it again; keys are one word that begins with spk_",
    )


def _variable(field: str) -> str:
    return field if field.isupper() else f"SPAWN_{field.upper()}"
