"""Reads server-sent events: the generator, the gateway's meter and its translation do it here.

A line ends with LF, CR or CRLF and with nothing else. What models write has other characters that
Unicode takes for ends of lines, such as U+2028, U+0085 and U+000C.

Source: HTML Standard, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

from collections.abc import Iterable

_BOM = b"\xef\xbb\xbf"
EVENT_MAX_BYTES = 4 * 1024**2  # a whole file is at most 1 MiB, and JSON may escape each character


class EventReader:
    """Takes a stream apart: `feed` it each chunk, then call `end`. Both give the data of events."""

    def __init__(self, event_max_bytes: int = EVENT_MAX_BYTES) -> None:
        self._event_max_bytes = event_max_bytes
        self._is_first = True
        self._rest = b""  # a line that hasn't ended yet
        self._has_cr = False  # the last line ended with CR: an LF that follows belongs to it
        self._data: list[bytes] = []
        self._size_bytes = 0  # of `_data`

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that end in this chunk. Raises ValueError for one that doesn't
        end within the limit."""
        if not chunk:
            return []
        if self._has_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._has_cr = chunk.endswith(b"\r")
        chunk = self._rest + chunk
        lines = chunk.splitlines()  # of bytes: at LF, CR and CRLF alone
        self._rest = lines.pop() if lines and not chunk.endswith((b"\n", b"\r")) else b""
        if lines and self._is_first:
            self._is_first = False
            lines[0] = lines[0].removeprefix(_BOM)
        events = self._events(lines)
        if len(self._rest) + self._size_bytes > self._event_max_bytes:
            raise ValueError(f"an event of more than {self._event_max_bytes} bytes")
        return events

    def end(self) -> list[bytes]:
        """The data of an event whose empty line is missing: some servers leave the last one out."""
        rest, self._rest = self._rest, b""
        return self._events([rest, b""])

    def _events(self, lines: Iterable[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                data = line[6:] if line.startswith(b"data: ") else line[5:]
                self._data.append(data)
                self._size_bytes += len(data)
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size_bytes = [], 0
        return events
