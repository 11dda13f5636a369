"""Which answers the front compresses, and how, over real sockets."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest
from agent.serving.compression import Gzip, accepts_gzip, is_compressible, joined, with_vary
from agent.serving.front import decide
from agent.serving.site import Serving, Site, Slot
from agent.serving.static_files import Folder

from tests.unit.agent.serving.test_answers import ask
from tests.unit.agent.serving.test_front import request

TEXT = b"again and " * 200
TAKES = b"Accept-Encoding: gzip\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("offer", "accepts"),
    [
        (b"gzip", True),
        (b"br, GZIP;q=0.5", True),
        (b"gzip ; q=1.0", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"br", False),
        (b"identity, *;q=0", False),
        (b"", False),
    ],
)
def test_a_client_says_whether_it_takes_gzip(offer: bytes, accepts: bool) -> None:
    assert accepts_gzip({b"accept-encoding": offer}) is accepts


@pytest.mark.parametrize(
    ("status", "headers", "length", "compressible"),
    [
        (200, {}, None, True),
        (404, {}, 5000, True),
        (200, {}, 1023, False),
        (206, {}, None, False),
        (304, {}, None, False),
        (200, {b"content-type": b"image/png"}, None, False),
        (200, {b"content-type": b"text/event-stream"}, None, False),
        (200, {b"content-type": b"TEXT/HTML; charset=utf-8"}, None, True),
        (200, {b"content-encoding": b"br"}, None, False),
        (200, {b"content-encoding": b"identity"}, None, True),
        (200, {b"cache-control": b"max-age=5, No-Transform"}, None, False),
        (200, {b"etag": b'"v1"'}, None, False),
        (200, {b"etag": b'W/"v1"'}, None, True),
        (200, {b"content-digest": b"sha-256=:x:"}, None, False),
    ],
)
def test_what_an_app_promises_of_its_bytes_is_kept(
    status: int, headers: dict[bytes, bytes], length: int | None, compressible: bool
) -> None:
    answer = {b"content-type": b"text/plain", **headers}
    assert is_compressible(status, answer, length) is compressible


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (b"", b"Accept-Encoding"),
        (b"Cookie", b"Cookie, Accept-Encoding"),
        (b"accept-encoding, Cookie", b"accept-encoding, Cookie"),
        (b"*", b"*"),
    ],
)
def test_caches_are_told_what_the_answer_depends_on(vary: bytes, expected: bytes) -> None:
    assert with_vary(vary) == expected


def test_all_that_was_added_can_be_read_at_once() -> None:
    stream, reader = Gzip(), zlib.decompressobj(31)
    assert reader.decompress(stream.add(b"first")) == b"first"
    assert reader.decompress(stream.add(b"second") + stream.end()) == b"second"
    assert reader.eof


def dechunk(body: bytes) -> bytes:
    data = b""
    while size := int(body.partition(b"\r\n")[0], 16):
        start = body.index(b"\r\n") + 2
        data, body = data + body[start : start + size], body[start + size + 2 :]
    assert body == b"0\r\n\r\n"
    return data


def test_an_answer_of_an_app_is_compressed_in_chunks_with_its_headers_to_fit() -> None:
    length = b"Content-Length: %d\r\nAccept-Ranges: bytes\r\nVary: Cookie\r\n\r\n" % len(TEXT)
    head, _, body = ask(HEAD + length + TEXT, TAKES).partition(b"\r\n\r\n")

    lines = head.lower().split(b"\r\n")
    assert {b"content-encoding: gzip", b"vary: cookie, accept-encoding"} <= {*lines}
    assert not [line for line in lines if line.startswith((b"content-length", b"accept-ranges"))]
    assert gzip.decompress(dechunk(body)) == TEXT


@pytest.mark.parametrize(
    "lines",
    [
        b"Cache-Control: no-transform\r\nCache-Control: max-age=5\r\n",
        b"Content-Encoding: br\r\nContent-Encoding: identity\r\n",
    ],
)
def test_of_lines_with_the_same_name_each_counts(lines: bytes) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(TEXT)
    assert ask(HEAD + lines + length + TEXT, TAKES).endswith(TEXT)
    assert accepts_gzip(joined([(b"accept-encoding", b"gzip"), (b"accept-encoding", b"br")]))


def test_an_empty_answer_of_unknown_length_ends_as_it_should() -> None:
    body = ask(HEAD + b"\r\n", TAKES).partition(b"\r\n\r\n")[2]
    assert gzip.decompress(dechunk(body)) == b""


def test_a_client_of_http_1_0_reads_to_the_end_of_the_connection() -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(TEXT)
    body = ask(HEAD + length + TEXT, TAKES, version=b"1.0").partition(b"\r\n\r\n")[2]
    assert gzip.decompress(body) == TEXT


def test_the_head_alone_says_what_it_would_be(tmp_path: Path) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(TEXT)
    head = ask(HEAD + length, TAKES, method=b"HEAD")
    assert b"Vary: Accept-Encoding" in head
    assert b"Content-Encoding" not in head
    (tmp_path / "index.html").write_bytes(TEXT)
    site = Site(slot=Slot(folder=str(tmp_path), port=1))
    site.answer_to("mine")
    site.show(Serving.FILES, site.slot, Folder(root=str(tmp_path)))
    answer = decide(site, request("mine"))
    assert answer is not None
    assert dict(answer.headers)["Content-Length"] == str(len(TEXT))
