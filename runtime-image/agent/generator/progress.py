"""How far a generation is, and what it does at the moment. Pure but for the callback.

Fed by the other modules of this package; `main.py` sends each change to the agent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

FIRST_PERCENT = 31
LAST_PERCENT = 89
CHARS_PER_TOKEN = 4.0
"""Roughly, of code and of English. The estimate is corrected at the end of each answer."""
WATCHED_CHARS = 400
_PATH = re.compile(r'"path"\s*:\s*"((?:[^"\\]|\\.){1,200})"')
_VERBS = {"write_file": "writing", "edit_file": "editing", "delete_file": "deleting"}


class Progress:
    """Compares the tokens that arrived with those that such apps usually take.

    The estimate slows down towards the end of its range and never reaches it. So it still moves if
    an app takes twice the usual tokens. It never falls.
    """

    def __init__(self, *, expected_tokens: int, on_change: Callable[[int, str], None]) -> None:
        self._expected_tokens = max(1, expected_tokens)
        self._on_change = on_change
        self._tokens = 0.0  # of the complete answers
        self._streamed = 0.0  # of the answer that is arriving, estimated
        self._tool = ""
        self._recent = ""
        self._shown = (0, "")
        self.message = "designing the app"

    @property
    def percent(self) -> int:
        share = 1 - math.exp(-1.1 * (self._tokens + self._streamed) / self._expected_tokens)
        reached = FIRST_PERCENT + int((LAST_PERCENT - FIRST_PERCENT) * share)
        return max(self._shown[0], min(LAST_PERCENT, reached))

    def show(self, message: str) -> None:
        """Show this message from now on."""
        self.message = message
        self._notify()

    def start_tool(self, name: str) -> None:
        """The answer begins a call of this tool."""
        self._tool, self._recent = name, ""

    def stream(self, piece: str) -> None:
        """Count a piece of an answer. A path in it becomes the message."""
        self._streamed += len(piece) / CHARS_PER_TOKEN
        if self._tool in _VERBS:
            self._recent = (self._recent + piece)[-WATCHED_CHARS:]
            match = _PATH.search(self._recent)
            if match:
                self.message = f"{_VERBS[self._tool]} {match[1]}"
                self._tool = ""  # what follows is the file's content
        self._notify()

    def end_answer(self, output_tokens: int) -> int:
        """Count a whole answer. Return its tokens; estimated if `output_tokens` is 0, unknown."""
        tokens = output_tokens or round(self._streamed)
        self._tokens += tokens
        self._streamed = 0.0
        self._notify()
        return tokens

    def _notify(self) -> None:
        current = (self.percent, self.message)
        if current != self._shown:
            self._shown = current
            self._on_change(*current)
