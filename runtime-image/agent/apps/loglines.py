"""Log lines of the app on their way to home: cut, cleaned, rate-limited. Pure: time is an argument.

`child.py` and `app.py` add lines, `reports.py` takes them.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from enum import StrEnum

from orchestrator.contract.wire import LOG_LINE_MAX_CHARS

RATE_LINES_PER_S = 100.0
BURST_LINES = 200.0
PENDING_LINES = 1_000
TAIL_LINES = 50
READ_BYTES_PER_S = 256 * 1024
DROP_BYTES_PER_S = 8 * 1024 * 1024

# PostgreSQL can't store NUL, and terminals obey the others.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def clean(line: str) -> str:
    """The line without control characters, cut to LOG_LINE_MAX_CHARS."""
    return _CONTROL.sub("", line)[:LOG_LINE_MAX_CHARS]


class LineSplitter:
    """Turns chunks of a pipe into lines, whatever the bytes. A line too long becomes several."""

    def __init__(self, *, max_chars: int | None = LOG_LINE_MAX_CHARS) -> None:
        self._max_chars = max_chars
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> list[str]:
        *lines, self._rest = (self._rest + self._decoder.decode(chunk)).split("\n")
        while self._max_chars is not None and len(self._rest) > self._max_chars:
            lines.append(self._rest[: self._max_chars])
            self._rest = self._rest[self._max_chars :]
        return lines

    def finish(self) -> list[str]:
        rest, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        return [rest] if rest else []


class Admission(StrEnum):
    """What to do with a chunk of output."""

    KEEP = "keep"  # make lines of it
    DROP = "drop"  # too much to look at
    WAIT = "wait"  # too much even to read: make the writer wait until the next second


class OutputMeter:
    """Limits how much of a program's output we handle in each second."""

    def __init__(self) -> None:
        self._second = -1
        self._bytes = 0

    def admit(self, size_bytes: int, now_s: float) -> Admission:
        """Count a chunk that was just read, and decide about it."""
        if int(now_s) != self._second:
            self._second, self._bytes = int(now_s), 0
        self._bytes += size_bytes
        if self._bytes <= READ_BYTES_PER_S:
            return Admission.KEEP
        return Admission.DROP if self._bytes <= DROP_BYTES_PER_S else Admission.WAIT


class LogBuffer:
    """Keeps lines until a report takes them. Drops lines beyond the rate, and says how many."""

    def __init__(self) -> None:
        self._pending: deque[str] = deque(maxlen=PENDING_LINES)
        self._allowance = BURST_LINES
        self._allowance_at_s = 0.0
        self._dropped = 0

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, line: str, now_s: float) -> None:
        allowance = self._allowance + (now_s - self._allowance_at_s) * RATE_LINES_PER_S
        self._allowance = min(BURST_LINES, allowance)
        self._allowance_at_s = now_s
        if self._allowance < 1:
            self._dropped += 1
            return
        self._allowance -= 1
        self._mention_dropped()
        self._pending.append(clean(line))

    def take(self, count: int) -> tuple[str, ...]:
        self._mention_dropped()
        return tuple(self._pending.popleft() for _ in range(min(count, len(self._pending))))

    def _mention_dropped(self) -> None:
        if self._dropped:
            self._pending.append(f"[{self._dropped} lines dropped: more than the log rate allows]")
            self._dropped = 0
