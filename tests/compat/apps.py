"""What apps do, what their check says, and what a visitor gets: the test and docs/compatibility.md
read this one table."""

from __future__ import annotations

from tests.compat import apps_answering, apps_asked, apps_heads, apps_showing
from tests.compat.app_cases import WELL

CASES = (
    *apps_answering.FIRST_PAGE,
    *apps_showing.PATIENCE,
    *apps_answering.REDIRECTS,
    *apps_showing.REFRESHES,
    *apps_answering.HEADS,
    *apps_answering.FRAMING,
    *apps_asked.METHODS,
    *apps_heads.TARGETS,
    *apps_heads.REQUESTS,
    *apps_answering.ENCODINGS,
    *apps_showing.DECODED,
    *apps_answering.STREAMS,
    *apps_showing.ENDLESS,
    *apps_asked.SOCKETS,
    *apps_asked.UPLOADS,
    *apps_asked.ADDRESSES,
)

TITLE = "Apps"
INTRODUCTION = """\
What an app does, what its check says, and what a visitor gets through the proxy. The check is both
that of the tools with which an app is written, which asks the app itself, and the one at its public
address: they always agree. “Well” means that the app is served; else a sentence with these words
goes back to the model."""
HEAD = ("", "The app does this", "Check", "Visitor")


def rows() -> list[list[str]]:
    """One row of the document for each case."""
    return [
        [
            case.topic,
            case.behaviour,
            case.check if case.check == WELL else _unwell(case.check),
            str(case.outcome),
        ]
        for case in CASES
    ]


def _unwell(check: str) -> str:
    return "unwell" if check.strip() == "GET /" else f"unwell: \u201c{check}\u201d"
