"""Static files: which path a request target names, and what is answered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent.serving.static_files import REVALIDATE, Answer, answer, resolve
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


def get(root: Path, target: str, method: str = "GET", etag: str | None = None) -> Answer:
    return answer(str(root), method, target, if_none_match=etag, cache_control=REVALIDATE)


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

    assert get(root, "/", etag=etag).status == 304
    assert get(root, "/", etag=f'W/{etag}, "other"').status == 304
    assert get(root, "/", etag='"other"').status == 200


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
