"""Log lines of the app on their way to home: cut, cleaned, rate-limited. Pure: time is an argument.

Filled by `app_process.py` and `generation.py`, emptied by `reports.py`.
"""

from __future__ import annotations

import codecs
import re
from collections import deque

from agent.layout import MAX_LINE_CHARS

RATE_LINES_PER_S = 100.0
BURST_LINES = 200.0
PENDING_LINES = 1_000
TAIL_LINES = 50

# PostgreSQL stores no NUL, and terminals obey the others.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


class LineSplitter:
    """Turns chunks of a pipe into lines, whatever the bytes; an endless line is cut in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> list[str]:
        *lines, self._rest = (self._rest + self._decoder.decode(chunk)).split("\n")
        while len(self._rest) > MAX_LINE_CHARS:
            lines.append(self._rest[:MAX_LINE_CHARS])
            self._rest = self._rest[MAX_LINE_CHARS:]
        return lines

    def finish(self) -> list[str]:
        rest, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        return [rest] if rest else []


class LogBuffer:
    """Lines waiting for a report, and the last lines for a failure's message."""

    def __init__(self) -> None:
        self._pending: deque[str] = deque(maxlen=PENDING_LINES)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._allowance = BURST_LINES
        self._allowance_at_s = 0.0
        self._dropped = 0

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, line: str, now_s: float) -> None:
        clean = _CONTROL.sub("", line)[:MAX_LINE_CHARS]
        self._tail.append(clean)
        grown = self._allowance + (now_s - self._allowance_at_s) * RATE_LINES_PER_S
        self._allowance = min(BURST_LINES, grown)
        self._allowance_at_s = now_s
        if self._allowance < 1:
            self._dropped += 1
            return
        self._allowance -= 1
        self._mention_dropped()
        self._pending.append(clean)

    def take(self, count: int) -> tuple[str, ...]:
        self._mention_dropped()
        return tuple(self._pending.popleft() for _ in range(min(count, len(self._pending))))

    def tail(self) -> str:
        """The last lines, at most MAX_LINE_CHARS characters."""
        return "\n".join(self._tail)[-MAX_LINE_CHARS:]

    def _mention_dropped(self) -> None:
        if self._dropped:
            self._pending.append(f"[{self._dropped} lines dropped: more than the log rate allows]")
            self._dropped = 0
