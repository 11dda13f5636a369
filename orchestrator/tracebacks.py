"""Tracebacks for logs: short, and with places alone. observability and the API's servers use it.

The values of variables are left out, since they may be prompts and keys. Somebody who can make a
request fail must not be able to fill the log, so the same traceback is written in full only once
in a while, and counted in between.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field

CHARS_MAX = 4096
_ERRORS_MAX = 3  # the error, what caused it, and what caused that
_PLACES_MAX = 16  # of each error: the innermost ones
_MESSAGE_MAX = 300
_KNOWN_MAX = 50
_LINE_EVERY_S = 60.0
_FULL_EVERY_S = 3600.0


def describe(error: BaseException, *, has_messages: bool = True) -> str:
    """The error and its causes, each with the places that it passed, the innermost one last.

    `has_messages`: False for errors whose messages may repeat what a stranger has sent.
    """
    lines = []
    for each in _chain(error):
        message = f": {each}"[:_MESSAGE_MAX] if has_messages and str(each) else ""
        lines.append(type(each).__name__ + message)
        places = traceback.extract_tb(each.__traceback__, limit=-_PLACES_MAX)
        lines += [f"  {_short(place.filename)}:{place.lineno} {place.name}" for place in places]
    return "\n".join(lines)[:CHARS_MAX]


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """A line to write about an error."""

    is_full: bool  # whether the traceback belongs into it
    repeats: int  # how many equal errors were left out before it


@dataclass
class Repeats:
    """Decides which of many equal tracebacks are written."""

    _known: dict[str, _Known] = field(default_factory=dict)

    def take(self, text: str, now_s: float) -> Occasion | None:
        """Count a traceback. None if no line is to be written about it now."""
        known = self._known.get(text)
        if known is None:
            self._forget(now_s)
            if len(self._known) >= _KNOWN_MAX:
                text = ""  # so many different ones count together
            known = self._known.setdefault(text, _Known())
        if now_s < known.line_s + _LINE_EVERY_S:
            known.repeats += 1
            return None
        is_full = bool(text) and now_s >= known.full_s + _FULL_EVERY_S
        occasion = Occasion(is_full=is_full, repeats=known.repeats)
        known.line_s, known.repeats = now_s, 0
        if is_full:
            known.full_s = now_s
        return occasion

    def _forget(self, now_s: float) -> None:
        old = [text for text, known in self._known.items() if now_s >= known.line_s + _FULL_EVERY_S]
        for text in old:
            del self._known[text]


@dataclass
class _Known:
    """What was written of one traceback."""

    line_s: float = float("-inf")  # when the latest line was written
    full_s: float = float("-inf")  # when it was written in full
    repeats: int = 0  # since the latest line


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, the cause of that."""
    each: BaseException | None = error
    for _ in range(_ERRORS_MAX):
        if each is None:
            return
        yield each
        context = None if each.__suppress_context__ else each.__context__
        first = each.exceptions[0] if isinstance(each, BaseExceptionGroup) else None
        each = first or each.__cause__ or context


def _short(path: str) -> str:
    """A path without the folder that all modules of its kind lie in."""
    for folder in ("/site-packages/", "/lib/python"):
        _, separator, rest = path.rpartition(folder)
        if separator:
            return rest
    _, separator, rest = path.rpartition("/orchestrator/")
    return f"orchestrator/{rest}" if separator else path[-100:]
