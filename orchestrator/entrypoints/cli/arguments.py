"""Arguments that several commands take, and what users mean by them: ids and labels.

Users type an id whole, or its first characters. Used by every command that takes one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated

import typer

from orchestrator.domain import errors, ids
from orchestrator.domain.pool import host_fields
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

SessionArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A session's id, or its first characters.")
]
HostArgument = Annotated[str, typer.Argument(metavar="NAME", help="A host's name.")]

# Characters after "ses_". They make 30 bits: enough to stay unique while new sessions start.
PREFIX_MIN = 6
_IDS_SHOWN = 5
_MATCHES_MAX = 100
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")


def find_session(api: Api, text: str) -> str:
    """The session's whole id. Raises Problem: bad_id, id_unknown, id_ambiguous."""

    def list_ids() -> list[str]:
        prefix = text.strip().lower()
        sessions = api.get("/api/admin/sessions", id_prefix=prefix, limit=_MATCHES_MAX)["sessions"]
        return [session["session_id"] for session in sessions]

    return resolve_id(text, "ses", list_ids, "spawnctl sessions list")


def resolve_id(
    text: str, kind: str, list_ids: Callable[[], Iterable[str]], list_command: str
) -> str:
    """The whole id that `text` is or begins. `kind` is its prefix, e.g. "ses".

    Calls `list_ids` only if `text` is not a whole id. Errors advise to run `list_command`.
    Raises Problem: bad_id, id_unknown, id_ambiguous.
    """
    text = text.strip().lower()
    if ids.is_id(text, kind):
        return text
    _check_prefix(text, kind)
    matches = [full_id for full_id in list_ids() if full_id.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise Problem(
            Exit.NOT_FOUND, "id_unknown", f"no id begins with {text}", f"See them: {list_command}"
        )
    shown = ", ".join(sorted(matches)[:_IDS_SHOWN]) + (", ..." if len(matches) > _IDS_SHOWN else "")
    raise Problem(
        Exit.USAGE,
        "id_ambiguous",
        f"{text} is the beginning of {len(matches)} ids: {shown}",
        "Give more characters.",
    )


def parse_labels(texts: Sequence[str]) -> Mapping[str, str]:
    """Labels as users type them: `disk=ssd`, or `gpu` for a label without a value.

    Raises InvalidInput, also if one label has two values.
    """
    labels: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if labels.get(key, value) != value:
            raise errors.InvalidInput(f"label {key} has two values", field="labels")
        labels[key] = value
    return host_fields.checked_labels(labels)


def _check_prefix(text: str, kind: str) -> None:
    prefix, _, rest = text.partition("_")
    if prefix == kind and PREFIX_MIN <= len(rest) <= 26 and _ALPHABET.issuperset(rest):
        return
    raise Problem(
        Exit.USAGE,
        "bad_id",
        f"{errors.quoted(text)} is no id: write {kind}_ and at least its first {PREFIX_MIN}"
        " characters",
    )
