"""What people may say to Claude: plain text of a bounded size. Called where it comes in."""

from __future__ import annotations

import re

from orchestrator.domain import errors
from orchestrator.domain.people.access import PROMPT_MAX_BYTES
from orchestrator.services.deps import Deps

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def checked(text: str, *, what: str, field: str, needed: str = "") -> str:
    """The text without blanks around it. `what` it is begins the codes of errors; `needed` is what
    is answered when there is none, where there has to be one.

    Raises errors.InvalidInput (<what>_empty, <what>_too_large, <what>_not_text).
    """
    said = text.strip()
    if needed and not said:
        raise errors.InvalidInput(needed, code=f"{what}_empty", field=field)
    if len(said.encode("utf-8", "surrogatepass")) > PROMPT_MAX_BYTES:
        raise errors.InvalidInput(
            f"a {what} has at most {PROMPT_MAX_BYTES} bytes; shorten it",
            code=f"{what}_too_large",
            field=field,
            limit_bytes=PROMPT_MAX_BYTES,
        )
    if _CONTROL.search(said) or any("\ud800" <= char <= "\udfff" for char in said):
        raise errors.InvalidInput(
            f"a {what} is plain text; take the control characters out",
            code=f"{what}_not_text",
            field=field,
        )
    return said


def check_generation(deps: Deps, *, field: str) -> None:
    """Raises errors.InvalidInput (generation_unavailable) where nobody could answer."""
    if deps.policy.can_generate:
        return
    names = [template.name for template in deps.catalog.list()]
    raise errors.InvalidInput(
        "no Claude key is configured, so only templates can be started: set ANTHROPIC_API_KEY,"
        f" or ask for one of {', '.join(names)}",
        code="generation_unavailable",
        field=field,
        setting="ANTHROPIC_API_KEY",
        templates=names,
    )
