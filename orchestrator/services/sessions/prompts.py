"""Checks what users write to Claude: plain text of a bounded size. Called by other services."""

from __future__ import annotations

import re

from orchestrator.domain import errors
from orchestrator.domain.people.access import PROMPT_MAX_BYTES
from orchestrator.services.deps import Deps

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def check_text(text: str, *, kind: str, field: str, if_empty: str = "") -> str:
    """The text without the blanks around it.

    `kind` ("prompt", "message") begins the codes of the errors. `field` is the field of the
    request. `if_empty` is the error message for an empty text; without it, a text may be empty.
    Raises errors.InvalidInput (<kind>_empty, <kind>_too_large, <kind>_not_text).
    """
    text = text.strip()
    if if_empty and not text:
        raise errors.InvalidInput(if_empty, code=f"{kind}_empty", field=field)
    if len(text.encode("utf-8", "surrogatepass")) > PROMPT_MAX_BYTES:
        raise errors.InvalidInput(
            f"a {kind} has at most {PROMPT_MAX_BYTES} bytes; shorten it",
            code=f"{kind}_too_large",
            field=field,
            limit_bytes=PROMPT_MAX_BYTES,
        )
    if CONTROL.search(text) or any("\ud800" <= char <= "\udfff" for char in text):
        raise errors.InvalidInput(
            f"a {kind} is plain text; remove the control characters",
            code=f"{kind}_not_text",
            field=field,
        )
    return text


def check_can_generate(deps: Deps, *, field: str) -> None:
    """Raises errors.Conflict (generation_unavailable) if no provider is configured."""
    if deps.policy.can_generate:
        return
    names = [template.name for template in deps.catalog.list()]
    raise errors.Conflict(
        "no Claude key is configured, so only templates can be started: set ANTHROPIC_API_KEY,"
        f" or ask for one of {', '.join(names)}",
        code="generation_unavailable",
        field=field,
        setting="ANTHROPIC_API_KEY",
        templates=names,
    )
