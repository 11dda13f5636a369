"""A hub that hears nothing, for tests in which nobody waits for events."""

from __future__ import annotations

from pathlib import Path

from orchestrator.entrypoints.api.hub import Hub


def deaf_hub() -> Hub:
    """Its folder can't be made."""
    return Hub(Path("/dev/null/events"), "deaf", ())
