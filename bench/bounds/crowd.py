"""One visitor with very many long polls: `python -m bench.bounds.crowd`, a process of its own.

It stands for another machine, so it runs at the lowest priority: what it costs itself must not
count. What it gets is printed as JSON at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from collections import Counter

from orchestrator.entrypoints import descriptors

_ADDRESS = "127.66.0.1"  # the other users have another one
_AGAIN_S = 5.0  # after a refusal: this attack holds, it does not hammer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--cookie", required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    os.nice(19)
    descriptors.raise_limit()
    request = (
        f"GET {args.path} HTTP/1.1\r\nHost: localhost:{args.port}\r\n"
        f"Cookie: {args.cookie}\r\nIf-None-Match: {args.tag}\r\n\r\n"
    ).encode()
    print(json.dumps(asyncio.run(_hold(args.port, request, args.count, args.seconds))))


async def _hold(port: int, request: bytes, count: int, seconds: float) -> dict[str, int]:
    seen: Counter[str] = Counter()
    ends_at = time.monotonic() + seconds
    polls = [asyncio.create_task(_poll(port, request, ends_at, seen)) for _ in range(count)]
    await asyncio.wait(polls, timeout=seconds)
    for poll in polls:
        poll.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    return dict(seen)


async def _poll(port: int, request: bytes, ends_at: float, seen: Counter[str]) -> None:
    """One poll after the other on one connection, which is opened again when it is lost."""
    while time.monotonic() < ends_at:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(_ADDRESS, 0)
            )
        except OSError:
            seen["not accepted"] += 1
            await asyncio.sleep(_AGAIN_S)
            continue
        try:
            while time.monotonic() < ends_at:
                writer.write(request)
                status = await _status(reader)
                seen[f"answer {status}"] += 1
                if status >= 400:
                    await asyncio.sleep(_AGAIN_S)
        except (OSError, EOFError):
            seen["closed"] += 1
            await asyncio.sleep(_AGAIN_S)
        finally:
            writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length is not None:
        await reader.readexactly(int(length[1]))
    return int(head[9:12])


if __name__ == "__main__":
    main()
