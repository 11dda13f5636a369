"""How far a generation is, and what it is at. Pure but for the callback."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

FIRST_PERCENT = 31
LAST_PERCENT = 89
CHARS_PER_TOKEN = 4.0
"""Of code and English alike, roughly; the estimate is corrected at the end of each answer."""
WATCHED_CHARS = 400
_PATH = re.compile(r'"path"\s*:\s*"((?:[^"\\]|\\.){1,200})"')
_VERBS = {"write_file": "writing", "edit_file": "editing", "delete_file": "deleting"}


class Progress:
    """Estimates from the tokens that came in against those that such apps usually take.

    It grows ever slower towards the end of its range and never gets there: who takes twice the
    usual sees it move all the same. It never falls.
    """

    def __init__(self, *, expected_tokens: int, on_change: Callable[[int, str], None]) -> None:
        self._expected_tokens = max(1, expected_tokens)
        self._on_change = on_change
        self._tokens = 0.0  # of the answers that are complete
        self._streamed = 0.0  # of the answer that is coming in, estimated
        self._tool = ""
        self._recent = ""
        self._said = (0, "")
        self.message = "designing the app"

    @property
    def percent(self) -> int:
        share = 1 - math.exp(-1.1 * (self._tokens + self._streamed) / self._expected_tokens)
        reached = FIRST_PERCENT + int((LAST_PERCENT - FIRST_PERCENT) * share)
        return max(self._said[0], min(LAST_PERCENT, reached))

    def at(self, message: str) -> None:
        """Say what is going on from now on."""
        self.message = message
        self._tell()

    def tool_begins(self, name: str) -> None:
        self._tool, self._recent = name, ""

    def stream(self, piece: str) -> None:
        """Count a piece of an answer; the path that it names becomes the message."""
        self._streamed += len(piece) / CHARS_PER_TOKEN
        if self._tool in _VERBS:
            self._recent = (self._recent + piece)[-WATCHED_CHARS:]
            found = _PATH.search(self._recent)
            if found:
                self.message = f"{_VERBS[self._tool]} {found[1]}"
                self._tool = ""  # what follows is the file's content
        self._tell()

    def answered(self, output_tokens: int) -> int:
        """An answer has ended; return its tokens, estimated if nobody counted them (0)."""
        tokens = output_tokens or round(self._streamed)
        self._tokens += tokens
        self._streamed = 0.0
        self._tell()
        return tokens

    def _tell(self) -> None:
        now = (self.percent, self.message)
        if now != self._said:
            self._said = now
            self._on_change(*now)
