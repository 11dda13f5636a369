"""HTTP, as far as a part that lies needs it: requests to read, and answers to give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAGE = b"<!doctype html><title>Welcome</title><p>Sign in to use this network."


@dataclass(frozen=True, kw_only=True)
class Request:
    """The head of a request."""

    method: str
    path: str
    length: int  # of its body, bytes
    closing: bytes  # the head, asking for a connection of its own


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Raises asyncio.IncompleteReadError if the client goes."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
    method, path, _ = lines[0].decode().split(" ", 2)
    headers = {
        name.lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines[1:])
    }
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    upgrade = headers.get(b"connection", b"").lower() == b"upgrade"
    kept.append(b"Connection: " + (b"Upgrade" if upgrade else b"close"))
    return Request(
        method=method,
        path=path,
        length=int(headers.get(b"content-length", b"0")),
        closing=b"\r\n".join([*kept, b"", b""]),
    )


def page(status: str = "200 OK") -> bytes:
    """What a captive portal or a wrong proxy answers."""
    return response(status, "text/html", PAGE)


def answer(value: Any, status: str = "200 OK") -> bytes:
    return response(status, "application/json", json.dumps(value).encode())


def events(values: Sequence[Any]) -> bytes:
    """An event stream."""
    frames = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    return response("200 OK", "text/event-stream", b"".join(frames))


def response(status: str, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
