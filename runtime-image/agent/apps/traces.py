"""Recognizes tracebacks in an app's output: of what an app prints, they say why. Pure.

Used by `loglines.py`. Python's begin with a title and end with the error, in the first line that
isn't indented. Node's begin with the error, and each further line begins with `at`.
"""

from __future__ import annotations

import re
from enum import StrEnum

LINES_MAX = 100
"""Of one traceback that count as such, besides its last. An endless recursion makes thousands."""

_TITLE = re.compile(r"[\s|+]*(Exception Group )?Traceback \(most recent call last\):")
_CALL = re.compile(r"\s+at \S")
_BETWEEN = frozenset(
    {
        "During handling of the above exception, another exception occurred:",
        "The above exception was the direct cause of the following exception:",
    }
)


class Part(StrEnum):
    """What a line is."""

    NONE = "none"  # no part of a traceback
    FIRST = "first"  # begins one
    MORE = "more"  # goes on with the one before
    CALL = "call"  # belongs to the line before, which is its first


class TraceReader:
    """Looks at one line after the other."""

    def __init__(self) -> None:
        self._lines = 0  # of the traceback so far; 0: we are in none
        self._was_call = False

    def read(self, line: str) -> Part:
        was_call, self._was_call = self._was_call, False
        if _TITLE.match(line):
            self._lines = 1
            return Part.FIRST
        if self._lines:
            return self._inside(line)
        if _CALL.match(line):
            self._was_call = True
            return Part.MORE if was_call else Part.CALL
        return Part.MORE if line in _BETWEEN else Part.NONE

    def _inside(self, line: str) -> Part:
        self._lines += 1
        if line and not line[0].isspace():
            self._lines = 0  # the error itself
            return Part.MORE
        return Part.MORE if self._lines <= LINES_MAX else Part.NONE
