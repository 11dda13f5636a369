"""ports.Probe over plain HTTP. The process `agents` uses it, for many apps at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.contract.front_pages import PAGE_HEADER, TRIAL_HEADER
from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_ROOM_BYTES
from orchestrator.contract.health import (
    BROWSER_HEADERS,
    ENDLESS_AFTER_S,
    PATIENCE_S,
    Answer,
    Condition,
    Finding,
    Walk,
)
from orchestrator.contract.page_bodies import decoded, refresh_of
from orchestrator.contract.visits import PROBE_HEADER
from orchestrator.domain.ids import Slug

_HTTP_PORT = 80  # browsers leave it out
_HEAD_END = b"\r\n\r\n"
_LINE_END = b"\r\n"
_ROOM_BYTES = 2 * HEAD_ROOM_BYTES
_LAST_CHUNK = b"0\r\n\r\n"
_CHALLENGE = "www-authenticate"
_CHUNK_BYTES = 64 * 1024
_BODY_BYTES = 1024 * 1024  # whether more than this arrives whole is not looked at
_READ_BYTES = 128 * 1024  # of a body that are kept, to be decoded and searched for a refresh


class HttpProbe:
    """Sends requests for apps below `apps_domain` to the proxy at `address` (host:port)."""

    def __init__(
        self,
        address: str,
        apps_domain: str,
        public_port: int = _HTTP_PORT,
        *,
        public_scheme: str = "http",
    ) -> None:
        """`public_port` and `public_scheme` are those of the addresses that visitors open."""
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._scheme = public_scheme
        self._domain = apps_domain if public_port == _HTTP_PORT else f"{apps_domain}:{public_port}"

    async def walk(self, slug: Slug, trial: str = "", *, patience_s: float = PATIENCE_S) -> Finding:
        """Open the app as a browser does, through the proxy. See ports.Probe.

        Answers are read by hand: the standard library refuses some that browsers take, with more
        than 100 lines in their heads for example.
        """
        host = f"{slug}.{self._domain}"
        ends_at_s = asyncio.get_running_loop().time() + patience_s
        walk = Walk(host, self._scheme)
        finding = None
        while finding is None:
            try:
                finding = walk.take(await self._ask(host, walk, trial, ends_at_s))
            except TimeoutError:
                problem = f"has no answer after {patience_s:g} s"
                finding = walk.unanswered(Condition.SILENT, problem)
            except OSError as error:
                problem = f"doesn't get to the proxy ({error.strerror or error})"
                finding = walk.unanswered(Condition.UNREACHED, problem)
            except ValueError:
                finding = walk.unanswered(Condition.UNREACHED, "gets no answer of the proxy")
        return finding

    async def _ask(self, host: str, walk: Walk, trial: str, ends_at_s: float) -> Answer:
        """Raises OSError, of which TimeoutError is one, and ValueError for what is no answer."""
        sent = [
            ("Host", host),
            *BROWSER_HEADERS,
            # No brotli: we couldn't say whether it is some. Browsers ask for it behind TLS alone.
            ("Accept-Encoding", "gzip, deflate"),
            # On the control port the proxy takes these three from us.
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", self._scheme),
            (PROBE_HEADER, "1"),
            *([(TRIAL_HEADER, trial)] if trial else []),
            *([("Cookie", walk.cookie)] if walk.cookie else []),
            ("Connection", "close"),
        ]
        lines = [f"GET {walk.path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]
        reader, writer = await self._connect(ends_at_s)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            async with asyncio.timeout_at(ends_at_s):
                head, rest = await _read_head(reader)
            status, headers, cookies = _parse(head)
            body = await _read_body(reader, headers, rest, ends_at_s)
            return _answer_of(status, headers, cookies, body)
        finally:
            writer.transport.abort()

    async def _connect(self, ends_at_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout_at(ends_at_s):
                return await asyncio.open_connection(*self._address)
        except TimeoutError as error:  # it is the proxy that doesn't answer
            raise ConnectionError("it takes no connection") from error


@dataclass(kw_only=True)
class _Body:
    """What has come of a body, as it is framed."""

    is_chunked: bool
    kept: bytearray  # its beginning
    tail: bytes = b""  # its last few bytes
    size: int = 0
    breaks_off: bool = False  # it ended before its end; one that we stopped reading didn't

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.kept += data[: max(0, _READ_BYTES - len(self.kept))]
        self.tail = (self.tail + data)[-len(_LAST_CHUNK) :]

    @property
    def is_empty(self) -> bool:
        return self.is_chunked and self.kept.startswith(_LAST_CHUNK)

    @property
    def content(self) -> bytes:
        """The beginning of it, without the frames."""
        if not self.is_chunked:
            return bytes(self.kept)
        content, at = bytearray(), 0
        while (line_end := self.kept.find(_LINE_END, at)) >= 0:
            size = int(self.kept[at:line_end].partition(b";")[0], 16)
            content += self.kept[line_end + 2 : line_end + 2 + size]
            at = line_end + 2 + size + 2
            if not size:
                break
        return bytes(content)


async def _read_head(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head, and what has come of the body."""
    received = bytearray()
    while _HEAD_END not in received and len(received) < HEAD_MAX_BYTES + _ROOM_BYTES:
        chunk = await reader.read(_CHUNK_BYTES)
        if not chunk:
            break
        received += chunk
    head, _, rest = bytes(received).partition(_HEAD_END)
    return head, rest


async def _read_body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], rest: bytes, ends_at_s: float
) -> _Body:
    """Read it to its end, but only for so long, and so much of it."""
    body = _Body(is_chunked="transfer-encoding" in headers, kept=bytearray())
    body.add(rest)
    length = 0 if body.is_chunked else int(headers.get("content-length", "0"))
    limit_bytes = _BODY_BYTES if body.is_chunked else min(length, _BODY_BYTES)
    patience_ends_at_s = asyncio.get_running_loop().time() + ENDLESS_AFTER_S
    try:
        async with asyncio.timeout_at(min(ends_at_s, patience_ends_at_s)):
            while body.size < limit_bytes:
                chunk = await reader.read(_CHUNK_BYTES)
                if not chunk:
                    body.breaks_off = not (body.is_chunked and body.tail == _LAST_CHUNK)
                    break
                body.add(chunk)
    except TimeoutError:
        pass
    except OSError:
        body.breaks_off = True
    return body


def _answer_of(
    status: int, headers: Mapping[str, str], cookies: tuple[str, ...], body: _Body
) -> Answer:
    """Raises ValueError if the proxy's frames are none."""
    coding = headers.get("content-encoding", "")
    content = decoded(body.content, coding, _READ_BYTES)
    return Answer(
        status=status,
        location=headers.get("location"),
        challenge=headers.get(_CHALLENGE, ""),
        page=headers.get(PAGE_HEADER.lower(), ""),
        cookies=cookies,
        breaks_off=body.breaks_off,
        is_empty=headers.get("content-length") == "0" or body.is_empty,
        unreadable=coding if content is None else "",
        refresh=refresh_of(
            headers.get("refresh", ""),
            headers.get("content-type", ""),
            (content or b"").decode("utf-8", "replace"),
        ),
    )


def _parse(head: bytes) -> tuple[int, Mapping[str, str], tuple[str, ...]]:
    """Status, headers by their names in lower case, and each Set-Cookie. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        raise ValueError("no status line")
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == _CHALLENGE and _CHALLENGE in headers:
            headers[_CHALLENGE] += f", {value.strip()}"
        if name.lower() == "set-cookie":
            cookies.append(value.strip())
        headers.setdefault(name.lower(), value.strip())
    return int(words[1]), headers, tuple(cookies)
