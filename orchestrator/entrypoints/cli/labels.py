"""Labels as people type them: `disk=ssd`, or `gpu` alone. Used by run and by hosts add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.domain import errors
from orchestrator.domain.pool import host_fields


def parse(texts: Sequence[str]) -> Mapping[str, str]:
    """A word alone is a label without a value. Raises InvalidInput, also for two values of one."""
    found: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if found.get(key, value) != value:
            raise errors.InvalidInput(f"label {key} has two values", field="labels")
        found[key] = value
    return host_fields.checked_labels(found)
