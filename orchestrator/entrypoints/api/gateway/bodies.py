"""Reads request bodies up to a limit. The agent app and the gateway use it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

from starlette.requests import Request

from orchestrator.domain import errors

_CHUNK_BYTES = 1024 * 1024


async def read_bounded(
    request: Request, limit_bytes: int, count: Callable[[int], None] = lambda _: None
) -> bytes | None:
    """The whole body, or None if it is larger than `limit_bytes`. `count` is told the bytes of each
    part."""
    if _claims_more(request, limit_bytes):
        return None
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        count(len(chunk))
        if size > limit_bytes:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def spool_bounded(
    request: Request,
    limit_bytes: int,
    folder: Path,
    in_thread: Callable[..., Awaitable[object]],
) -> IO[bytes] | None:
    """The body as an unnamed file in `folder`, or None if it is larger than `limit_bytes`.

    The caller closes the file. `in_thread` runs what writes to it. Raises
    errors.StorageUnavailable.
    """
    if _claims_more(request, limit_bytes):
        return None
    with errors.storage("keep an upload"), contextlib.ExitStack() as opened:
        file = opened.enter_context(tempfile.TemporaryFile(dir=folder))
        size, chunk = 0, bytearray()
        async for part in request.stream():
            size += len(part)
            if size > limit_bytes:
                return None
            chunk += part
            if len(chunk) >= _CHUNK_BYTES:
                await in_thread(file.write, bytes(chunk))
                chunk.clear()
        await in_thread(file.write, bytes(chunk))
        file.seek(0)
        opened.pop_all()
    return file


def _claims_more(request: Request, limit_bytes: int) -> bool:
    """Whether its head says already that the body is too large."""
    length = request.headers.get("content-length", "0")
    return length.isdigit() and int(length) > limit_bytes
