"""Log lines of the app on their way to home: cut, cleaned, rate-limited. Pure: time is an argument.

`child.py` and `app.py` add lines, `reports.py` takes them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from collections.abc import Iterator
from enum import StrEnum

from agent.apps.traces import Part, TraceReader
from orchestrator.contract.wire import LOG_LINE_MAX_CHARS

RATE_LINES_PER_S = 100.0
BURST_LINES = 200.0
RATE_BYTES_PER_S = 32 * 1024.0
BURST_BYTES = 512 * 1024.0
"""As JSON, in which a byte that is no text takes six."""
PENDING_BYTES = 1024 * 1024
"""While home takes none. Then the oldest lines go first."""
TAIL_LINES = 50
TAIL_BYTES = 32 * 1024
TRACE_LINES = 200
TRACE_BYTES = 64 * 1024
"""Of all tracebacks in what is beyond the rate. As JSON."""
TRACE_CHARS = 1_200
"""Of a traceback that the last lines don't show any more."""
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
    """Keeps lines until a report takes them.

    What is beyond the rate waits apart, until the rate allows it: of that only the last lines and
    tracebacks are kept, since they say why something failed. Lines in between are dropped and
    counted; repeats of a line are counted too.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[str, int]] = deque()  # with their bytes as JSON
        self._lines = BURST_LINES  # less than none: more was sent than the rate allows
        self._bytes = BURST_BYTES
        self._at_s = 0.0
        self._pending_bytes = 0
        self._outdated = 0  # since lines were taken
        self._excess = _Excess()
        self._last = ""
        self._repeats = 0  # of the last line, since they were mentioned

    def __bool__(self) -> bool:
        return bool(self._pending or self._excess or self._repeats)

    def add(self, line: str, now_s: float) -> None:
        line = clean(line)
        if line and line == self._last:
            self._repeats += 1
            return
        self._refill(now_s)
        self._mention_repeats()
        self._last = line
        self._admit(line)

    def take(self, most: int, most_bytes: int, now_s: float) -> tuple[str, ...]:
        """The oldest lines, at most so many of them and of their bytes as JSON."""
        self._refill(now_s)
        self._mention_repeats()
        if self._lines >= 0 and self._bytes >= 0:
            self._release_excess()
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

    def _refill(self, now_s: float) -> None:
        seconds, self._at_s = now_s - self._at_s, now_s
        self._lines = min(BURST_LINES, self._lines + seconds * RATE_LINES_PER_S)
        self._bytes = min(BURST_BYTES, self._bytes + seconds * RATE_BYTES_PER_S)

    def _mention_repeats(self) -> None:
        if self._repeats:
            count, self._repeats = self._repeats, 0
            self._admit(f"[the last line came {count} more times]")

    def _admit(self, line: str) -> None:
        size = _json_bytes(line)
        if self._lines >= self._excess.lines + 1 and self._bytes >= self._excess.bytes + size:
            self._release_excess()
            self._excess.pass_by(line)
            self._append(line, size)
        else:
            self._excess.add(line, size)

    def _release_excess(self) -> None:
        for line, size in self._excess.take():
            self._append(line, size)

    def _append(self, line: str, size: int) -> None:
        self._lines -= 1
        self._bytes -= size
        self._pending.append((line, size))
        self._pending_bytes += size
        while self._pending_bytes > PENDING_BYTES:
            _, size = self._pending.popleft()
            self._pending_bytes -= size
            self._outdated += 1


class _Excess:
    """Lines beyond the rate: the last ones, and those of tracebacks."""

    def __init__(self) -> None:
        self._traces = TraceReader()
        self._numbered = 0  # lines that came since they were taken
        # Number, line and bytes as JSON of each.
        self._newest: deque[tuple[int, str, int]] = deque()
        self._newest_bytes = 0
        self._kept: list[tuple[int, str, int]] = []
        self._kept_bytes = 0

    def __bool__(self) -> bool:
        return self._numbered > 0

    @property
    def lines(self) -> int:
        return len(self._newest) + len(self._kept)

    @property
    def bytes(self) -> int:
        return self._newest_bytes + self._kept_bytes

    def pass_by(self, line: str) -> None:
        """Only look at a line that is within the rate: a traceback may begin in it."""
        self._traces.read(line)

    def add(self, line: str, size: int) -> None:
        self._numbered += 1
        part = self._traces.read(line)
        if part is Part.CALL and self._newest and self._newest[-1][0] == self._numbered - 1:
            number, first, first_bytes = self._newest.pop()
            self._newest_bytes -= first_bytes
            self._keep(number, first, first_bytes)
        if part is Part.NONE or not self._keep(self._numbered, line, size):
            self._newest.append((self._numbered, line, size))
            self._newest_bytes += size
        while len(self._newest) > TAIL_LINES or self._newest_bytes > TAIL_BYTES:
            self._newest_bytes -= self._newest.popleft()[2]

    def take(self) -> Iterator[tuple[str, int]]:
        """All that was kept, in order, with a line for each gap."""
        last = 0
        for number, line, size in sorted([*self._kept, *self._newest]):
            yield from self._gap(number - last - 1)
            yield line, size
            last = number
        yield from self._gap(self._numbered - last)
        self._numbered = self._newest_bytes = self._kept_bytes = 0
        self._newest.clear()
        self._kept.clear()

    def _keep(self, number: int, line: str, size: int) -> bool:
        """Keep a line of a traceback. False if there is no room for more of them."""
        if len(self._kept) >= TRACE_LINES or self._kept_bytes + size > TRACE_BYTES:
            return False
        self._kept.append((number, line, size))
        self._kept_bytes += size
        return True

    def _gap(self, lines: int) -> Iterator[tuple[str, int]]:
        if lines:
            line = f"[{lines} lines dropped: more than the log rate allows]"
            yield line, _json_bytes(line)


class Console:
    """The end of an app's output, for the model: the last lines, and the last traceback."""

    def __init__(self) -> None:
        self._traces = TraceReader()
        self._trace: deque[str] = deque(maxlen=TAIL_LINES)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._last = ""
        self._repeats = 0

    def add(self, line: str) -> None:
        line = clean(line)
        if line and line == self._last:
            self._repeats += 1
            return
        if self._repeats:
            self._tail.append(self._mention())
        part = self._traces.read(line)
        if part in (Part.FIRST, Part.CALL):
            self._trace.clear()
        if part is Part.CALL:
            self._trace.append(self._last)
        if part is not Part.NONE:
            self._trace.append(line)
        self._tail.append(line)
        self._last, self._repeats = line, 0

    @property
    def text(self) -> str:
        """At most LOG_LINE_MAX_CHARS characters."""
        lines = [*self._tail, self._mention()] if self._repeats else self._tail
        text = "\n".join(lines)[-LOG_LINE_MAX_CHARS:]
        if not self._trace or self._names_error(text):
            return text
        trace = "\n".join(self._trace)[-TRACE_CHARS:] + "\n[...]\n"
        return trace + text[len(trace) - LOG_LINE_MAX_CHARS :]

    def _names_error(self, text: str) -> bool:
        """Whether the line of the last traceback that names the error is in the text."""
        error = self._trace[0] if self._trace[-1].lstrip().startswith("at ") else self._trace[-1]
        return error in text

    def _mention(self) -> str:
        return f"[the last line came {self._repeats} more times]"


def _json_bytes(line: str) -> int:
    return len(json.dumps(line)) + len(", ")
