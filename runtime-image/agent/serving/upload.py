"""The body of one request: how much of it has come, and when it is too much, or too slow.

Used by the front.
"""

from __future__ import annotations

import asyncio

import h11

from agent.serving import pages
from agent.serving.static_files import Answer, html_answer, problem_answer
from orchestrator.contract import uploads

CHUNK_BYTES = 64 * 1024
LINGER_S = 5.0
"""For a client that is still sending when it has its answer. It reads that only then."""
BODY_GRACE_S = 30.0
BODY_BYTES_PER_S = 4096
"""A body may let us wait for the grace, and for as long as what has come takes at this rate: half
of what a bad mobile connection has. Who trickles a byte now and then holds a place of others."""


class UploadRefused(Exception):
    """The body has more than the limit, or comes too slowly."""


class Upload:
    """Counts one body, and how long we wait for it."""

    def __init__(
        self, request: h11.Request, max_bytes: int, *, grace_s: float = BODY_GRACE_S
    ) -> None:
        headers = dict(request.headers)
        self.is_chunked = b"transfer-encoding" in headers
        self.length = 0 if self.is_chunked else int(headers.get(b"content-length", b"0"))
        self.is_too_large = self.length > max_bytes  # by its head alone
        self.is_empty = not (self.length or self.is_chunked)
        self.is_read = self.is_empty
        self._wants_page = b"text/html" in headers.get(b"accept", b"").lower()
        self._max_bytes = max_bytes
        self._grace_s = grace_s
        self._size = 0
        self._waited_s = 0.0  # for the client; the time that the app takes is not its
        self._is_too_slow = False

    def count(self, size: int) -> None:
        """Note that so many bytes have come. Raises UploadRefused."""
        self._size += size
        if self._size > self._max_bytes:
            raise UploadRefused

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """The next bytes from the client; none at its end. Raises UploadRefused."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        left_s = self._grace_s + self._size / BODY_BYTES_PER_S - self._waited_s
        try:
            async with asyncio.timeout(left_s):
                return await reader.read(CHUNK_BYTES)
        except TimeoutError as error:
            self._is_too_slow = True
            raise UploadRefused from error
        finally:
            self._waited_s += loop.time() - begun_s

    def refusal(self) -> Answer:
        """A page for people, problem details for programs."""
        if self._is_too_slow:
            if self._wants_page:
                return html_answer(408, pages.TOO_SLOW)
            return problem_answer(408, uploads.slow_refusal(BODY_BYTES_PER_S).encode())
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
