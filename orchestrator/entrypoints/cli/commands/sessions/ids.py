"""Which session somebody means. Used by every command that takes a session's id."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.entrypoints.cli import names
from orchestrator.entrypoints.cli.client import Api

ALL = 1000  # the most that the API gives at once; a prefix is looked up among these
_LISTING = "spawnctl sessions list"

SessionArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A session's id, or its beginning.")
]


def find(api: Api, text: str) -> str:
    """The whole id. Raises Problem (bad_id, id_unknown, id_ambiguous)."""

    def known() -> list[str]:
        found = api.get("/api/admin/sessions", limit=ALL)
        return [one["session_id"] for one in found["sessions"]]

    return names.resolve(text, "ses", known, _LISTING)
