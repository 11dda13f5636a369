"""The body of one request: how much of it has come, and when it is too much. Used by the front."""

from __future__ import annotations

import asyncio

import h11

from agent.serving import pages
from agent.serving.static_files import Answer, html_answer, problem_answer
from orchestrator.contract import uploads

CHUNK_BYTES = 64 * 1024
LINGER_S = 5.0
"""For a client that is still sending when it has its answer. It reads that only then."""


class UploadTooLarge(Exception):
    """The body has more than the limit."""


class Upload:
    """Counts one body."""

    def __init__(self, request: h11.Request, max_bytes: int) -> None:
        headers = dict(request.headers)
        length = 0 if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))
        self.is_too_large = length > max_bytes  # by its head alone
        self.is_read = not length and b"transfer-encoding" not in headers
        self._wants_page = b"text/html" in headers.get(b"accept", b"").lower()
        self._max_bytes = max_bytes
        self._size = 0

    def count(self, size: int) -> None:
        """Note that so many bytes have come. Raises UploadTooLarge."""
        self._size += size
        if self._size > self._max_bytes:
            raise UploadTooLarge

    def refusal(self) -> Answer:
        """A page for people, problem details for programs."""
        if self._wants_page:
            return html_answer(413, pages.too_large(uploads.shown(self._max_bytes)))
        return problem_answer(413, uploads.refusal(self._max_bytes).encode())

    async def linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the rest of the body, for a while, after an answer that came before it ended.

        To hang up at once would reset the connection, and the client might lose the answer. Raises
        OSError; TimeoutError is one.
        """
        if self.is_read:
            return
        writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await reader.read(CHUNK_BYTES):
                pass
