"""Files as browsers ask for them: parts, conditions and single-page apps, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot
from agent.serving.static_files import Folder

DEADLINE_S = 20.0
SOUND = bytes(range(256)) * 1024  # longer than one read of the front


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "a.wav").write_bytes(SOUND)
    (tmp_path / "index.html").write_text("page")
    slot = Slot(folder=str(tmp_path), port=1)
    site = Site(slot=slot)
    site.answer_to("mine")
    files = {"a.wav", "index.html"}
    site.show(Serving.FILES, slot, Folder(root=slot.folder, files=files, spa=True))
    return site


def ask(
    site: Site, target: str, *lines: str, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the front's answer."""
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: mine", *lines, "", ""])

    async def run() -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            front = await Front(site).listen("127.0.0.1", 0)
            port = front.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode())
            answer = await reader.read()
            writer.close()
            front.close()
        return answer

    answered, _, body = asyncio.run(run()).partition(b"\r\n\r\n")
    status, *pairs = answered.decode().split("\r\n")
    return int(status.split()[1]), dict(pair.split(": ", 1) for pair in pairs), body


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-1", 0, 1),
        ("5-", 5, 262143),
        ("-5", 262139, 262143),
        ("70000-200000", 70000, 200000),
        ("262143-999999", 262143, 262143),
    ],
)
def test_a_player_gets_the_part_that_it_asks_for(
    site: Site, asked: str, first: int, last: int
) -> None:
    status, headers, body = ask(site, "/a.wav", f"Range: bytes={asked}")

    assert status == 206
    assert body == SOUND[first : last + 1]
    assert headers["Content-Range"] == f"bytes {first}-{last}/262144"
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Type"] == "audio/wav"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["ETag"] == ask(site, "/a.wav")[1]["ETag"]


def test_a_part_behind_the_end_is_refused_with_the_size(site: Site) -> None:
    status, headers, _ = ask(site, "/a.wav", "Range: bytes=9999999999-")

    assert (status, headers["Content-Range"]) == (416, "bytes */262144")


@pytest.mark.parametrize(
    "lines",
    [
        ["Range: bytes=0-1,5-6"],
        ["Range: bytes=0-1", "Range: bytes=5-6"],
        ["Range: bytes=2-1"],
        ["Range: seconds=1-2"],
        ["Range: bytes=0-1", 'If-Range: "other"'],
        ["Range: bytes=0-1", "If-Range: Sun, 29 Nov 2026 06:00:00 GMT"],
    ],
    ids=str,
)
def test_the_whole_file_is_the_answer_to_all_other_ranges(site: Site, lines: list[str]) -> None:
    status, headers, body = ask(site, "/a.wav", *lines)

    assert (status, headers["Accept-Ranges"]) == (200, "bytes")
    assert body == SOUND


def test_a_download_goes_on_only_if_the_file_is_the_same(site: Site) -> None:
    etag = ask(site, "/a.wav")[1]["ETag"]

    assert ask(site, "/a.wav", "Range: bytes=9-", f"If-Range: {etag}")[0] == 206
    assert ask(site, "/a.wav", "Range: bytes=9-", f"If-Range: W/{etag}")[0] == 200


def test_a_copy_that_is_still_right_needs_no_part(site: Site) -> None:
    etag = ask(site, "/a.wav")[1]["ETag"]
    status, headers, body = ask(
        site, "/a.wav", "Range: bytes=0-1", 'If-None-Match: "other"', f"If-None-Match: W/{etag}"
    )

    assert (status, headers["ETag"], body) == (304, etag, b"")


def test_a_copy_that_is_still_right_depends_on_what_the_file_does(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("page" * 500)
    for target in ("/", "/a.wav", "/recipe/3"):
        lines = ("Accept: text/html", "Accept-Encoding: gzip")
        headers = ask(site, target, *lines)[1]
        status, kept, body = ask(site, target, *lines, f"If-None-Match: {headers['ETag']}")

        assert (status, body) == (304, b"")
        assert kept.get("Vary") == headers.get("Vary")
        assert ("Accept-Encoding" in kept.get("Vary", "")) is (target != "/a.wav")
        assert "Content-Encoding" not in kept


def test_a_head_says_that_there_are_parts_and_is_none_itself(site: Site) -> None:
    status, headers, body = ask(site, "/a.wav", "Range: bytes=0-1", method="HEAD")

    assert (status, headers["Accept-Ranges"], headers["Content-Length"]) == (200, "bytes", "262144")
    assert body == b""


def test_a_page_of_a_single_page_app_can_be_opened_and_reloaded(site: Site) -> None:
    status, headers, body = ask(site, "/recipe/3", "Accept: image/avif", "Accept: text/html, */*")

    assert (status, headers["Content-Type"], body) == (200, "text/html; charset=utf-8", b"page")
    assert headers["Vary"] == "Accept"
    assert ask(site, "/recipe/3", "Accept: */*")[0] == 404
    assert ask(site, "/recipe/3.js", "Accept: text/html")[0] == 404
