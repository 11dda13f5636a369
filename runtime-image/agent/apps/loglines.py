"""Log lines of the app on their way to home: cut, cleaned, rate-limited. Pure: time is an argument.

`child.py` and `app.py` add lines, `reports.py` takes them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from enum import StrEnum

from orchestrator.contract.wire import LOG_LINE_MAX_CHARS

RATE_LINES_PER_S = 100.0
BURST_LINES = 200.0
RATE_BYTES_PER_S = 32 * 1024.0
BURST_BYTES = 512 * 1024.0
"""As JSON, in which a byte that is no text takes six."""
PENDING_BYTES = 1024 * 1024
"""While home takes none. Then the oldest lines go first."""
TAIL_LINES = 50
READ_BYTES_PER_S = 256 * 1024
DROP_BYTES_PER_S = 8 * 1024 * 1024
LINE_COST_BYTES = 64
"""What a line counts besides its bytes: to handle one costs time even if it is empty."""

CUT = " [...]"

# PostgreSQL can't store NUL, and terminals obey the others.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def clean(text: str, max_chars: int = LOG_LINE_MAX_CHARS) -> str:
    """The text without control characters and without what can't be encoded; cut, with a mark."""
    text = _CONTROL.sub("", text[: 2 * max_chars]).encode("utf-8", "replace").decode()
    return text if len(text) <= max_chars else text[: max_chars - len(CUT)] + CUT


class LineSplitter:
    """Turns chunks of a pipe into lines, whatever the bytes. A line too long becomes several."""

    def __init__(self, *, max_chars: int = LOG_LINE_MAX_CHARS) -> None:
        self._max_chars = max_chars
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []  # pieces of the line that hasn't ended
        self._rest_chars = 0

    def feed(self, chunk: bytes) -> list[str]:
        *ended, rest = self._decoder.decode(chunk).split("\n")
        lines: list[str] = []
        for end in ended:
            self._add(end, lines)
            lines.append(self._take())
        self._add(rest, lines)
        return lines

    def finish(self) -> list[str]:
        lines: list[str] = []
        self._add(self._decoder.decode(b"", final=True), lines)
        return [*lines, self._take()] if self._rest_chars else lines

    def _add(self, text: str, lines: list[str]) -> None:
        """Continue the line with `text`; as soon as it is too long, its beginning is a line."""
        while self._rest_chars + len(text) > self._max_chars:
            room = self._max_chars - self._rest_chars
            self._rest.append(text[:room])
            text = text[room:]
            lines.append(self._take())
        if text:
            self._rest.append(text)
            self._rest_chars += len(text)

    def _take(self) -> str:
        line = "".join(self._rest)
        self._rest, self._rest_chars = [], 0
        return line


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
        self._cost = 0

    def admit(self, chunk: bytes, now_s: float) -> Admission:
        """Count a chunk that was just read, and decide about it."""
        if int(now_s) != self._second:
            self._second, self._bytes, self._cost = int(now_s), 0, 0
        self._bytes += len(chunk)
        self._cost += len(chunk) + LINE_COST_BYTES * chunk.count(b"\n")
        if self._cost <= READ_BYTES_PER_S:
            return Admission.KEEP
        return Admission.DROP if self._bytes <= DROP_BYTES_PER_S else Admission.WAIT


class LogBuffer:
    """Keeps lines until a report takes them. Drops what is beyond the rate, and says how much."""

    def __init__(self) -> None:
        self._pending: deque[tuple[str, int]] = deque()  # with their bytes as JSON
        self._lines = BURST_LINES
        self._bytes = BURST_BYTES
        self._at_s = 0.0
        self._pending_bytes = 0
        self._dropped = 0  # since the last line that was kept
        self._outdated = 0  # since lines were taken

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, line: str, now_s: float) -> None:
        seconds, self._at_s = now_s - self._at_s, now_s
        self._lines = min(BURST_LINES, self._lines + seconds * RATE_LINES_PER_S)
        self._bytes = min(BURST_BYTES, self._bytes + seconds * RATE_BYTES_PER_S)
        if self._lines < 1:
            self._dropped += 1
            return
        line = clean(line)
        size = _json_bytes(line)
        if self._bytes < size:
            self._dropped += 1
            return
        self._lines -= 1
        self._bytes -= size
        self._mention_dropped()
        self._append(line, size)

    def take(self, most: int, most_bytes: int) -> tuple[str, ...]:
        """The oldest lines, at most so many of them and of their bytes as JSON."""
        self._mention_dropped()
        lines: list[str] = []
        if self._outdated:
            lines.append(f"[{self._outdated} lines dropped: nobody took them in time]")
            self._outdated = 0
        while self._pending and len(lines) < most and self._pending[0][1] <= most_bytes:
            line, size = self._pending.popleft()
            lines.append(line)
            most_bytes -= size
            self._pending_bytes -= size
        return tuple(lines)

    def _mention_dropped(self) -> None:
        if self._dropped:
            line = f"[{self._dropped} lines dropped: more than the log rate allows]"
            self._append(line, _json_bytes(line))
            self._dropped = 0

    def _append(self, line: str, size: int) -> None:
        self._pending.append((line, size))
        self._pending_bytes += size
        while self._pending_bytes > PENDING_BYTES:
            _, size = self._pending.popleft()
            self._pending_bytes -= size
            self._outdated += 1


def _json_bytes(line: str) -> int:
    return len(json.dumps(line)) + len(", ")
