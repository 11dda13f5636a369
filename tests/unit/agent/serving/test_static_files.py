"""Static files: which path a request target names, and what is answered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent.serving.media_types import media_type
from agent.serving.ranges import asked_bytes
from agent.serving.static_files import Answer, Folder, Request, answer, resolve
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "docs").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "index.html").write_text("home")
    (folder / "docs" / "index.html").write_text("docs")
    (folder / "größe.css").write_text("")
    (folder / ".env").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    return folder


def get(root: Path, target: str, method: str = "GET", *, spa: bool = False, **asked: str) -> Answer:
    folder = Folder(root=str(root), spa=spa)
    return answer(folder, Request(method=method, target=target, **asked))


def test_a_folder_means_its_index(root: Path) -> None:
    assert get(root, "/").path == str(root / "index.html")
    assert get(root, "/docs/?page=2").path == str(root / "docs" / "index.html")
    assert get(root, "/empty/").status == 404


def test_a_folder_without_its_slash_is_redirected_within_the_site(root: Path) -> None:
    assert dict(get(root, "/docs?x=1").headers)["Location"] == "./docs/?x=1"
    assert dict(get(root, "//docs").headers)["Location"] == "./docs/"


def test_names_are_decoded_and_typed_by_their_extension(root: Path) -> None:
    css = get(root, "/gr%C3%B6%C3%9Fe.css")

    assert css.path == str(root / "größe.css")
    assert dict(css.headers)["Content-Type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize(
    "target",
    [
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/docs/..%2f..%2foutside.txt",
        "/link.txt",
        "/.env",
        "/docs/../.env",
        "/..\\outside.txt",
        "/%00",
        "/%ff",
        "index.html",
        "*",
        "http://other/",
    ],
)
def test_nothing_hidden_or_outside_the_folder_is_served(root: Path, target: str) -> None:
    assert get(root, target).status == 404


@given(target=st.text(alphabet="./%2eEfF\\\x00abc", max_size=30))
def test_no_target_ever_resolves_outside_the_folder(target: str) -> None:
    path = resolve("/srv/app", "/" + target)

    assert path is None or os.path.normpath(path + "/").startswith("/srv/app")


def test_what_is_no_plain_file_is_not_served(root: Path) -> None:
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "404.html")
    missing = get(root, "/pipe")

    assert (missing.status, missing.path) == (404, None)


def test_an_unchanged_file_is_answered_with_304(root: Path) -> None:
    etag = dict(get(root, "/").headers)["ETag"]

    assert get(root, "/", if_none_match=etag).status == 304
    assert get(root, "/", if_none_match=f'W/{etag}, "other"').status == 304
    assert get(root, "/", if_none_match='"other"').status == 200


def test_a_changed_file_of_the_same_size_has_another_etag(root: Path) -> None:
    before = dict(get(root, "/").headers)["ETag"]
    details = (root / "index.html").stat()
    (root / "index.html").write_text("HOME")
    os.utime(root / "index.html", ns=(0, details.st_mtime_ns + 1))

    assert dict(get(root, "/").headers)["ETag"] != before


def test_other_methods_than_get_and_head_are_not_allowed(root: Path) -> None:
    assert get(root, "/", "HEAD").status == 200
    assert get(root, "/", "POST").status == 405


def test_the_apps_own_page_is_shown_for_what_is_missing(root: Path) -> None:
    (root / "404.html").write_text("lost")
    missing = get(root, "/nowhere")

    assert (missing.status, missing.path) == (404, str(root / "404.html"))


def test_the_data_of_the_version_before_is_no_page_for_what_is_missing(root: Path) -> None:
    (root / "404.html").write_text("made by a server")
    folder = Folder(root=str(root), files={"index.html"})

    assert answer(folder, Request(method="GET", target="/nowhere")).path is None
    assert answer(folder, Request(method="GET", target="/docs")).status == 404


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-1", range(2)),
        ("bytes=2-4", range(2, 5)),
        ("bytes=5-", range(5, 10)),
        ("Bytes= 9-9\t", range(9, 10)),
        ("bytes=3-99", range(3, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-99", range(10)),
        ("bytes=0-" + "9" * 1000, range(10)),
    ],
)
def test_a_range_is_the_part_of_the_file_that_it_names(header: str, part: range) -> None:
    assert asked_bytes(header, 10) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=9999999999-", "bytes=-0"])
def test_a_range_behind_the_end_holds_no_bytes(header: str) -> None:
    assert asked_bytes(header, 10) == range(0)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=4-2",
        "bytes=0-1,4-5",
        "bytes=0-1, bytes=4-5",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=1--2",
        "bytes=\u0661-\u0662",
        "items=0-1",
        "bytes=" + "9" * 60_000 + "-",
    ],
)
def test_what_is_not_one_range_means_the_whole_file(header: str) -> None:
    assert asked_bytes(header, 10) is None


def test_an_empty_file_is_always_answered_whole() -> None:
    assert [asked_bytes(header, 0) for header in ("bytes=0-", "bytes=-1")] == [None, None]


@given(
    header=st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}", fullmatch=True), size=st.integers(0, 99)
)
def test_no_range_ever_leaves_the_file(header: str, size: int) -> None:
    part = asked_bytes(header, size)

    assert part is None or (part.step == 1 and set(part) <= set(range(size)))


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.m4a", "audio/mp4"),
        ("a.MOV", "video/quicktime"),
        ("a.vtt", "text/vtt; charset=utf-8"),
        ("a.glb", "model/gltf-binary"),
        ("a.opus", "audio/ogg"),
        ("a.avif", "image/avif"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.wasm", "application/wasm"),
        ("a.min.mjs", "text/javascript; charset=utf-8"),
        ("a.woff2", "font/woff2"),
        ("a.jsonld", "application/ld+json"),
        ("data/json", "application/octet-stream"),
        ("folder.js/LICENSE", "application/octet-stream"),
        ("a.strange", "application/octet-stream"),
    ],
)
def test_the_types_of_todays_web_are_known(name: str, content_type: str) -> None:
    assert media_type(name) == content_type


PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "target", ["/recipe/3", "/recipe/3/?q=a.b", "/empty", "/empty/", "/v1.2/x"]
)
def test_a_navigation_within_a_single_page_app_gets_its_page(root: Path, target: str) -> None:
    for method in ("GET", "HEAD"):
        page = get(root, target, method, spa=True, accept=PAGE)
        assert (page.status, page.path) == (200, str(root / "index.html"))
        assert dict(page.headers)["Vary"] == "Accept"
        etag = dict(page.headers)["ETag"]
        assert get(root, target, method, spa=True, accept=PAGE, if_none_match=etag).status == 304
    assert get(root, target, accept=PAGE).status == 404


@pytest.mark.parametrize(
    ("target", "accept"),
    [
        ("/app.js", PAGE),
        ("/recipe/3.html", PAGE),
        ("/recipe/3%2Ejson", PAGE),
        ("/.git/config", PAGE),
        ("/../outside", PAGE),
        ("/recipe/3", "*/*"),
        ("/recipe/3", "application/json"),
        ("/recipe/3", None),
    ],
)
def test_all_else_that_is_missing_stays_missing(
    root: Path, target: str, accept: str | None
) -> None:
    folder = Folder(root=str(root), spa=True)
    missing = answer(folder, Request(method="GET", target=target, accept=accept))

    assert missing.status == 404


def test_files_and_folders_of_a_single_page_app_are_served_as_ever(root: Path) -> None:
    (root / "LICENSE").write_text("free")

    assert get(root, "/LICENSE", spa=True, accept=PAGE).path == str(root / "LICENSE")
    assert get(root, "/docs/", spa=True, accept=PAGE).path == str(root / "docs" / "index.html")
    assert get(root, "/docs", spa=True, accept=PAGE).status == 308
    assert get(root, "/recipe/3", "POST", spa=True, accept=PAGE).status == 405
