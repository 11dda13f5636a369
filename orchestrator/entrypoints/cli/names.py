"""Ids as people type them: whole, or the first characters. Used by commands that take an id."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchestrator.domain import ids
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

PREFIX_MIN = 6  # characters after "ses_": 30 bits, so that a list that is a minute old still holds
_SHOWN = 5
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")


def resolve(text: str, kind: str, known: Callable[[], Iterable[str]], listing: str) -> str:
    """The id that `text` means. `kind` is "ses" or "key"; `known` is asked for all ids only when
    `text` isn't a whole one; `listing` is the command that shows them.

    Raises Problem: bad_id, id_unknown, id_ambiguous.
    """
    text = text.strip().lower()
    if ids.is_id(text, kind):
        return text
    _check_form(text, kind)
    found = [one for one in known() if one.startswith(text)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Problem(
            Exit.NOT_FOUND, "id_unknown", f"no id begins with {text}", f"See them: {listing}"
        )
    shown = ", ".join(sorted(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    raise Problem(
        Exit.USAGE,
        "id_ambiguous",
        f"{text} is the beginning of {len(found)} ids: {shown}",
        "Give more characters.",
    )


def _check_form(text: str, kind: str) -> None:
    start, _, rest = text.partition("_")
    if start == kind and PREFIX_MIN <= len(rest) <= 26 and _ALPHABET.issuperset(rest):
        return
    raise Problem(
        Exit.USAGE,
        "bad_id",
        f"{text!r} is no id: write {kind}_ and at least its first {PREFIX_MIN} characters",
    )
