"""Reads request bodies up to a limit. The agent app and the gateway use it."""

from __future__ import annotations

from starlette.requests import Request


async def read_bounded(request: Request, limit_bytes: int) -> bytes | None:
    """The whole body, or None if it is larger than `limit_bytes`."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
