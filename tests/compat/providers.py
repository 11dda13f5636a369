"""Provider behaviour and its outcome: the test and docs/compatibility.md read this one table."""

from __future__ import annotations

from collections.abc import Sequence

from tests.compat import (
    messages_cases,
    messages_dialects,
    openai_cases,
    openai_dialects,
    openai_pieces,
)

CASES = (
    *messages_cases.CASES,
    *messages_dialects.CASES,
    *openai_cases.CASES,
    *openai_dialects.CASES,
    *openai_pieces.CASES,
)

TITLE = "Providers"
INTRODUCTION = (
    "What a provider does, and what comes of it. \u201cThe next provider\u201d is the next one that"
    " is configured:\nAnthropic's API, the fallback (`SPAWN_FALLBACK_API_KEY`), an"
    " OpenAI-compatible endpoint (`SPAWN_OPENAI_BASE_URL`)."
)
HEAD = ("Provider", "It does this", "Outcome")


def rows() -> list[Sequence[str]]:
    """The table, as docs/compatibility.md has it."""
    return [(case.api.value, case.behaviour, str(case.outcome)) for case in CASES]
