"""What makes a bundle acceptable: its members and its manifest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.domain.sessions import bundles
from orchestrator.domain.sessions.bundles import Member

OUTSIDE = ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\\..\\x", "", "a\0b", "//x", "/"]
INSIDE = ["a", "a/b.html", "./a", ".", "...", "a..b", "..a/b", "a/", "spaced name", "naïve.txt"]


def member(path: str, size_bytes: int = 1, **changes: Any) -> Member:
    fields = {"is_file": True, "is_folder": False, **changes}
    return Member(path=path, size_bytes=size_bytes, **fields)


def folder(path: str) -> Member:
    return member(path, 0, is_file=False, is_folder=True)


MANIFEST = member("spawn.json")


def refusal(*members: Member) -> str:
    with pytest.raises(errors.InvalidInput) as caught:
        bundles.check_members(list(members))
    assert caught.value.code == "bundle_refused"
    return str(caught.value)


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_could_leave_the_folder_is_refused(path: str) -> None:
    assert not bundles.is_inside(path)
    assert "points outside" in refusal(MANIFEST, member(path))
    assert "points outside" in refusal(MANIFEST, folder(path))


@pytest.mark.parametrize("path", INSIDE)
def test_a_path_below_the_folder_is_taken(path: str) -> None:
    assert bundles.is_inside(path)
    bundles.check_members([MANIFEST, member(path)])


@given(st.text("./ab\\\0", max_size=12))
def test_what_is_inside_resolves_to_inside(path: str) -> None:
    if bundles.is_inside(path):
        depth = 0
        for part in path.split("/"):
            depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
            assert depth >= 0
        assert not path.startswith("/")


def test_what_is_neither_file_nor_folder_is_refused() -> None:
    link = member("link", is_file=False)
    assert "'link' is neither a file nor a folder" in refusal(MANIFEST, link)


def test_a_bundle_has_at_most_2000_members() -> None:
    most = [MANIFEST, *(member(f"{number}.txt") for number in range(1999))]
    bundles.check_members(most)
    assert "at most 2000 files" in refusal(*most, member("one more"))


def test_a_bundle_unpacks_to_at_most_100_mib() -> None:
    half = bundles.UNPACKED_MAX_BYTES // 2
    bundles.check_members([member("spawn.json", half), member("a", half)])
    assert "unpacks to at most" in refusal(member("spawn.json", half), member("a", half + 1))


@pytest.mark.parametrize("path", ["spawn.json", "./spawn.json", ".//spawn.json"])
def test_the_manifest_lies_at_the_root(path: str) -> None:
    bundles.check_members([folder("."), member(path)])


@pytest.mark.parametrize("path", ["app/spawn.json", "SPAWN.JSON", "spawn.json.txt"])
def test_a_bundle_without_a_manifest_at_its_root_is_refused(path: str) -> None:
    assert "needs spawn.json at its root" in refusal(member(path))
    assert "needs spawn.json at its root" in refusal()


@pytest.mark.parametrize("again", ["spawn.json", "./spawn.json", "a/b", "a//b", "a/./b", "a"])
def test_a_path_that_occurs_twice_is_refused(again: str) -> None:
    """What was checked here could be another file than the one that an agent ends up with."""
    sound = [MANIFEST, folder("a"), member("a/b")]
    bundles.check_members(sound)
    assert "occurs twice" in refusal(*sound, member(again))


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "static"},
        {"kind": "static", "start": []},
        {"kind": "static", "start": None, "unknown": {"field": 1}},
        {"kind": "python", "start": ["python", "main.py"]},
        {"kind": "python", "start": ["python3", "-m", "app"]},
        {"kind": "python", "start": ["uvicorn", "main:app", "--port", "$PORT"]},
        {"kind": "python", "start": ["gunicorn", "app.main:app"]},
        {"kind": "python", "start": ["flask", "run"]},
        {"kind": "node", "start": ["node", "./src/server.js"]},
    ],
    ids=str,
)
def test_a_sound_manifest_is_read(data: dict[str, Any]) -> None:
    manifest = bundles.read_manifest({**data, "title": "Kanban"})
    assert manifest.kind == data["kind"]
    assert manifest.start == tuple(data.get("start") or ())
    assert manifest.title == "Kanban"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (None, "manifest"),
        ([], "manifest"),
        ("static", "manifest"),
        ({}, "kind"),
        ({"kind": "ruby"}, "kind"),
        ({"kind": ["static"]}, "kind"),
        ({"kind": "python"}, "start"),
        ({"kind": "python", "start": []}, "start"),
        ({"kind": "python", "start": "python main.py"}, "start"),
        ({"kind": "python", "start": ["python", 3]}, "start"),
        ({"kind": "python", "start": ["python", ""]}, "start"),
        ({"kind": "python", "start": ["sh", "-c", "x"]}, "start"),
        ({"kind": "python", "start": ["/usr/bin/python", "main.py"]}, "start"),
        ({"kind": "python", "start": ["python", "/etc/passwd"]}, "start"),
        ({"kind": "python", "start": ["python", "../main.py"]}, "start"),
        ({"kind": "python", "start": ["python", "a/../../main.py"]}, "start"),
        ({"kind": "python", "start": ["python", ".."]}, "start"),
        ({"kind": "node", "start": ["node main.js"]}, "start"),
        ({"kind": "static", "start": "rm"}, "start"),
    ],
    ids=str,
)
def test_a_manifest_that_is_wrong_is_refused_by_the_field(data: object, field: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        bundles.read_manifest(data)
    assert (caught.value.code, caught.value.detail["field"]) == ("bundle_refused", field)


@pytest.mark.parametrize(
    ("title", "read"), [("x" * 121, "x" * 120), (7, ""), (None, ""), ("Café", "Café")]
)
def test_a_title_is_a_short_text_or_nothing(title: object, read: str) -> None:
    assert bundles.read_manifest({"kind": "static", "title": title}).title == read
