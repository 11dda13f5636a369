"""Small apps that do one odd thing each. The table in `apps` is made of them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping

from tests.integration.proxy.world import Handler, Head

PAGE = b"<!doctype html><title>App</title><p>Hello</p>"
LONG_PAGE = PAGE + b"<p>again</p>" * 200
HTML = "text/html; charset=utf-8"
# Bytes that no decoder is at hand for: what matters is that they arrive as they are.
BROTLI = b"\x0b\x02\x80Hello\x03"
FIRST, LAST = b"data: first\n\n", b"data: last\n\n"
REASONS = {200: "OK", 302: "Found", 304: "Not Modified", 401: "Unauthorized", 404: "Not Found"}

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


def head_of(status: int, headers: Mapping[str, str | list[str]], version: str = "1.1") -> bytes:
    lines = [f"HTTP/{version} {status} {REASONS.get(status, 'Odd')}"]
    for name, value in headers.items():
        lines += [f"{name}: {each}" for each in ([value] if isinstance(value, str) else value)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def raw(data: bytes) -> Handler:
    """An app that sends these bytes, whatever it is asked, and hangs up."""

    async def handle(head: Head, reader: Reader, writer: Writer) -> None:
        await read_body(head, reader)
        writer.write(data)

    return handle


def answer(status: int = 200, body: bytes = PAGE, **headers: str | list[str]) -> Handler:
    """An app that answers with a length. An underscore in a header's name stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    fields = {"Content-Type": HTML, "Content-Length": str(len(body)), **named}
    return raw(head_of(status, fields) + body)


def unframed(data: bytes, **headers: str) -> Handler:
    """The same without a length: `data` is all that follows the head."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return raw(head_of(200, {"Content-Type": HTML, **named}) + data)


def chunks(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def beside(handler: Handler) -> Handler:
    """A page at `/`, and at all other paths the odd thing."""
    page = answer()

    async def handle(head: Head, reader: Reader, writer: Writer) -> None:
        await (page if (head.method, head.target) == ("GET", "/") else handler)(
            head, reader, writer
        )

    return handle


def one_at_a_time(handler: Handler) -> Handler:
    """Serves a visitor from the head of the request to the end of the answer, then the next one."""
    turn = asyncio.Lock()

    async def handle(head: Head, reader: Reader, writer: Writer) -> None:
        async with turn:
            await handler(head, reader, writer)
            await writer.drain()

    return handle


def of_host(status: int, location: str) -> Handler:
    """Redirects to a location in which `{host}` is the Host of the request."""

    async def handle(head: Head, _: Reader, writer: Writer) -> None:
        if head.target != "/":
            writer.write(head_of(200, {"Content-Length": str(len(PAGE))}) + PAGE)
            return
        where = location.format(host=head.headers["host"])
        writer.write(head_of(status, {"Location": where, "Content-Length": "0"}))

    return handle


def wants_cookie(attributes: str) -> Handler:
    """Sets a cookie and redirects to the same path, until the cookie comes back."""

    async def handle(head: Head, _: Reader, writer: Writer) -> None:
        if "sid=1" in head.headers.get("cookie", "").split("; "):
            writer.write(head_of(200, {"Content-Length": str(len(PAGE))}) + PAGE)
            return
        cookies = ["lang=en", f"sid=1{attributes}"]
        fields = {"Location": "/", "Set-Cookie": cookies, "Content-Length": "0"}
        writer.write(head_of(302, fields))

    return handle


def redirects(steps: int) -> Handler:
    """To /1, /2 and so on, then a page."""

    async def handle(head: Head, _: Reader, writer: Writer) -> None:
        number = int(head.target.strip("/") or "0")
        if number == steps:
            writer.write(head_of(200, {"Content-Length": str(len(PAGE))}) + PAGE)
            return
        where = f"/{number + 1}"
        writer.write(head_of(302, {"Location": where, "Content-Length": "0"}))

    return handle


def refresh_page(target: str) -> bytes:
    return b'<!doctype html><meta http-equiv="refresh" content="0; url=%s">' % target.encode()


def refreshes(target: str, *, by_header: bool = False) -> Handler:
    """A page at `/` and at /next; the first one leads to the target by itself."""

    async def handle(head: Head, _: Reader, writer: Writer) -> None:
        status = 200 if head.target in {"/", "/next"} else 404
        leads = head.target == "/"
        body = refresh_page(target) if leads and not by_header else PAGE
        fields = {"Content-Type": HTML, "Content-Length": str(len(body))}
        if leads and by_header:
            fields["Refresh"] = f"0; url={target}"
        writer.write(head_of(status, fields) + body)

    return handle


async def read_body(head: Head, reader: Reader) -> bytes:
    if head.headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    return await reader.readexactly(int(head.headers.get("content-length", "0")))


async def report_body(head: Head, reader: Reader, writer: Writer) -> None:
    """Answers with the method and the number of bytes that came."""
    body = await read_body(head, reader)
    text = f"{head.method} {len(body)}".encode()
    writer.write(head_of(200, {"Content-Length": str(len(text))}) + text)


async def expects(head: Head, reader: Reader, writer: Writer) -> None:
    """Says 100 before it reads, if that was asked for."""
    if "expect" in head.headers:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await report_body(head, reader, writer)


async def answer_early(_: Head, __: Reader, writer: Writer) -> None:
    """Refuses before it has read the body, and hangs up."""
    writer.write(head_of(401, {"Content-Length": "4"}) + b"none")


async def converse(head: Head, reader: Reader, writer: Writer) -> None:
    """Writes a line, reads the body, writes how much it was."""
    writer.write(head_of(200, {"Connection": "close"}) + b"begun\n")
    await writer.drain()
    writer.write(b"%d" % len(await read_body(head, reader)))


async def echo_body(head: Head, reader: Reader, writer: Writer) -> None:
    """Sends the body back while it comes."""
    left = int(head.headers["content-length"])
    writer.write(head_of(200, {"Content-Length": str(left)}))
    while left:
        piece = await reader.read(min(left, 65536))
        left -= len(piece)
        writer.write(piece)
        await writer.drain()


async def report_target(head: Head, _: Reader, writer: Writer) -> None:
    """Answers with the target as it came."""
    text = head.target.encode("latin-1")
    writer.write(head_of(200, {"Content-Length": str(len(text))}) + text)


async def keep_open(_: Head, reader: Reader, writer: Writer) -> None:
    """Answers with a length, and keeps the connection although it was told to close it."""
    head = head_of(200, {"Connection": "keep-alive", "Content-Length": str(len(PAGE))})
    writer.write(head + PAGE)
    await reader.read()


async def slow(_: Head, __: Reader, writer: Writer) -> None:
    await asyncio.sleep(0.2)
    writer.write(head_of(200, {"Content-Length": str(len(PAGE))}) + PAGE)


def after(seconds: float) -> Handler:
    """A page that takes its time."""
    page = answer()

    async def handle(head: Head, reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(seconds)
        await page(head, reader, writer)

    return handle


def with_picture(stream: Stream) -> Handler:
    """A page that shows what the stream sends."""
    page = answer(200, PAGE + b'<img src="/camera">')

    async def handle(head: Head, reader: Reader, writer: Writer) -> None:
        await (stream if head.target == "/camera" else page)(head, reader, writer)

    return handle


async def match_etag(head: Head, reader: Reader, writer: Writer) -> None:
    """A document that is only written by whoever has its strong tag."""
    await read_body(head, reader)
    status = 200
    if head.method == "PUT":
        status = 204 if head.headers.get("if-match") == '"v1"' else 412
    if head.headers.get("if-none-match") == '"v1"':
        status = 304
    body = LONG_PAGE if status == 200 else b""
    fields = {"ETag": '"v1"', "Content-Type": HTML}
    if status == 200:
        fields["Content-Length"] = str(len(body))
    writer.write(head_of(status, fields) + body)


async def part(head: Head, _: Reader, writer: Writer) -> None:
    """A part of a file, to whoever asks for one."""
    if head.headers.get("range") != "bytes=2-5":
        writer.write(head_of(200, {"Content-Length": str(len(LONG_PAGE))}) + LONG_PAGE)
        return
    fields = {
        "Content-Type": HTML,
        "Content-Range": f"bytes 2-5/{len(LONG_PAGE)}",
        "Content-Length": "4",
    }
    writer.write(head_of(206, fields) + LONG_PAGE[2:6])


class Stream:
    """Sends its first piece, and the last one when the client has got that."""

    def __init__(self, content_type: str, *, is_chunked: bool = True, ends: bool = True) -> None:
        self._content_type = content_type
        self._is_chunked = is_chunked
        self._ends = ends
        self._released: asyncio.Event | None = None

    async def __call__(self, _: Head, __: Reader, writer: Writer) -> None:
        released = self._released = asyncio.Event()
        fields = {"Content-Type": self._content_type}
        if self._is_chunked:
            fields["Transfer-Encoding"] = "chunked"
        writer.write(head_of(200, fields) + self._framed(FIRST))
        await writer.drain()
        await released.wait()
        writer.write(self._framed(LAST))
        if self._is_chunked and self._ends:
            writer.write(b"0\r\n\r\n")

    async def release(self) -> None:
        assert self._released is not None
        self._released.set()

    def _framed(self, piece: bytes) -> bytes:
        return chunks(piece, end=b"") if self._is_chunked else piece


async def echo_frames(_: Head, reader: Reader, writer: Writer) -> None:
    """Agrees to the WebSocket, and sends back what comes."""
    writer.write(head_of(101, {"Upgrade": "websocket", "Connection": "Upgrade"}))
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()


COMPRESSED = gzip.compress(LONG_PAGE)
WEBSOCKET = beside(echo_frames)
