"""What an app can do to the agent socket. Runs inside a sandbox: attacks.py sends it there.

The standard library only. It prints how often each thing happened, as JSON, at the end.

    intruder.py idle COUNT SECONDS           hold so many connections that say nothing
    intruder.py uploads COUNT SECONDS TOKEN  hold so many uploads that don't end
    intruder.py bomb 1 SECONDS TOKEN         upload a bundle with a manifest of 20 MiB, repeatedly
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import heapq
import http.client
import io
import json
import selectors
import socket
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable

_SOCKET = "/run/spawn/agent.sock"
_AGAIN_S = 1.0  # after a refusal; without a pause it would only wear down its own half CPU
_MANIFEST_BYTES = 20 * 1024**2
_BODY_BYTES = 19 * 1024**2
_FIRST_PART = bytes(64 * 1024)


def main() -> None:
    kind, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if kind == "idle":
        seen = Crowd(count, lambda _: b"").hold(seconds)
    elif kind == "uploads":
        tokens = ("nonsense", sys.argv[4])
        seen = Crowd(count, lambda number: _unfinished(tokens[number % 2])).hold(seconds)
    else:
        seen = send_bombs(sys.argv[4], seconds)
    print(json.dumps(seen), flush=True)


class Crowd:
    """Connections that are held, and opened again when they are closed."""

    def __init__(self, count: int, opening: Callable[[int], bytes]) -> None:
        """`opening`: the bytes that connection number so-and-so begins with."""
        self._opening = opening
        self._due = [(0.0, number) for number in range(count)]  # a heap
        self._selector = selectors.DefaultSelector()
        self.seen: Counter[str] = Counter()
        self._open = 0

    def hold(self, seconds: float) -> dict[str, int]:
        ends_at = time.monotonic() + seconds
        while (now := time.monotonic()) < ends_at:
            while self._due and self._due[0][0] <= now:
                self._connect(heapq.heappop(self._due)[1])
            self.seen["most at a time"] = max(self.seen["most at a time"], self._open)
            for key, _ in self._selector.select(0.1):
                self._look(key.fileobj, key.data)  # type: ignore[arg-type]
        return dict(self.seen)

    def _connect(self, number: int) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            connection.connect(_SOCKET)
            with contextlib.suppress(BlockingIOError):
                connection.send(self._opening(number))
        except OSError:  # the listener's queue is full, or it closes at once
            connection.close()
            self._try_later(number, "not accepted")
            return
        self.seen["opened"] += 1
        self._open += 1
        self._selector.register(connection, selectors.EVENT_READ, number)

    def _look(self, connection: socket.socket, number: int) -> None:
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data.startswith(b"HTTP/1.1 "):
            self.seen["answer " + data[9:12].decode()] += 1
        if not data:
            self._selector.unregister(connection)
            connection.close()
            self._open -= 1
            self._try_later(number, "closed")

    def _try_later(self, number: int, reason: str) -> None:
        self.seen[reason] += 1
        heapq.heappush(self._due, (time.monotonic() + _AGAIN_S, number))


def send_bombs(token: str, seconds: float) -> dict[str, int]:
    """Upload the bomb again and again. Returns how often each status was answered."""
    bomb = _bomb()
    headers = {
        "Authorization": f"Bearer {token}",
        "X-Spawn-Sha256": hashlib.sha256(bomb).hexdigest(),
    }
    seen: Counter[str] = Counter({"bytes": len(bomb)})
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        seen[_put(bomb, headers)] += 1
    return dict(seen)


def _put(body: bytes, headers: dict[str, str]) -> str:
    connection = http.client.HTTPConnection("home", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(_SOCKET)
        connection.request("PUT", "/agent/bundle", body, headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
    with contextlib.suppress(ValueError, KeyError):
        return f"answer {response.status} {json.loads(answer)['code']}"
    return f"answer {response.status}"


def _bomb() -> bytes:
    manifest = b"[" + b"[]," * (_MANIFEST_BYTES // 3) + b"[]]"
    files = {"spawn.json": manifest, "index.html": b"<h1>boom</h1>"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 9)


def _unfinished(token: str) -> bytes:
    head = (
        f"PUT /agent/bundle HTTP/1.1\r\nHost: home\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {_BODY_BYTES}\r\n\r\n"
    )
    return head.encode() + _FIRST_PART


if __name__ == "__main__":
    main()
