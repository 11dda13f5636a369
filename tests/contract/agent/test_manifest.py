"""`spawn.json`: which kinds, start commands and titles are taken."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from orchestrator.contract.bundles import BundleInvalid
from orchestrator.contract.manifest import (
    MANIFEST_MAX_BYTES,
    AppKind,
    check_entry,
    parse_manifest,
    read_manifest,
)


def test_a_start_command_gets_port_and_host_filled_in() -> None:
    start = ["uvicorn", "main:app", "--host=$HOST", "--port", "${PORT}"]
    manifest = parse_manifest({"kind": "python", "start": start, "title": "T", "surplus": 1})

    command = manifest.command(host="127.0.0.1", port=3001)
    assert command == ["uvicorn", "main:app", "--host=127.0.0.1", "--port", "3001"]


@pytest.mark.parametrize("start", [None, [], "", ["rm", "-rf", "/"]])
def test_a_static_app_needs_no_start_command_and_ignores_one(start: object) -> None:
    manifest = parse_manifest({"kind": "static", "start": start})

    assert (manifest.kind, manifest.start) == (AppKind.STATIC, ())


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("python", ["python", "main.py"]),
        ("python", ["python3", "-m", "app"]),
        ("python", ["uvicorn", "main:app", "--port", "$PORT"]),
        ("python", ["gunicorn", "app.main:app"]),
        ("python", ["flask", "run"]),
        ("node", ["node", "./src/server.js"]),
    ],
    ids=str,
)
def test_a_sound_start_command_is_read(kind: str, start: list[str]) -> None:
    manifest = parse_manifest({"kind": kind, "start": start})

    assert (manifest.kind, list(manifest.start)) == (kind, start)


@pytest.mark.parametrize(
    "start",
    [
        None,
        [],
        "python main.py",
        ["python", 3],
        ["python", ""],
        ["bash", "-c", "true"],
        ["node main.js"],
        ["/usr/bin/python", "main.py"],
        ["python", "/etc/passwd"],
        ["python", "../other.py"],
        ["python", "a/../../main.py"],
        ["python", ".."],
        ["python", "-x/../y"],
        ["gunicorn", "--config=/etc/passwd"],
        ["gunicorn", "--chdir=../.."],
        ["python"] * 33,
        ["python", "x" * 501],
        ["python", "-c", "print(1)\nprint(2)"],
    ],
    ids=lambda start: str(start)[:40],
)
def test_a_start_command_that_is_no_interpreter_in_the_folder_is_refused(start: object) -> None:
    with pytest.raises(BundleInvalid, match="start") as caught:
        parse_manifest({"kind": "python", "start": start})
    assert caught.value.field == "start"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (None, "manifest"),
        ([], "manifest"),
        ("static", "manifest"),
        ({}, "kind"),
        ({"kind": "ruby"}, "kind"),
        ({"kind": ["static"]}, "kind"),
        ({"kind": "static", "title": 7}, "title"),
        ({"kind": "static", "name": ["x"]}, "title"),
        ({"kind": "static", "start": "rm"}, "start"),
        ({"kind": "static", "start": ["rm", ""]}, "start"),
        ({"kind": "static", "spa": "true"}, "spa"),
        ({"kind": "static", "spa": 1}, "spa"),
        ({"kind": "static", "spa": []}, "spa"),
        ({"kind": "node", "start": ["node", "main.js"], "spa": True}, "spa"),
    ],
    ids=str,
)
def test_a_manifest_that_is_wrong_is_refused_by_the_field(document: object, field: str) -> None:
    with pytest.raises(BundleInvalid) as caught:
        parse_manifest(document)
    assert caught.value.field == field


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b" " * 70_000, b"[" * 60_000])
def test_bytes_that_are_no_manifest_are_refused(raw: bytes) -> None:
    with pytest.raises(BundleInvalid) as caught:
        read_manifest(raw)
    assert caught.value.field == "manifest"


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"title": "x" * 201}, "x" * 200),
        ({"title": "Café", "name": "cafe"}, "Café"),
        ({"name": "kanban"}, "kanban"),
        ({"title": "", "name": None}, "App"),
        ({}, "App"),
    ],
    ids=str,
)
def test_an_app_always_has_a_title(fields: dict[str, Any], title: str) -> None:
    assert parse_manifest({"kind": "static", **fields}).title == title


@pytest.mark.parametrize(
    ("fields", "spa"),
    [({}, False), ({"spa": None}, False), ({"spa": False}, False), ({"spa": True}, True)],
)
def test_a_static_app_can_be_a_single_page(fields: dict[str, Any], *, spa: bool) -> None:
    assert parse_manifest({"kind": "static", **fields}).spa is spa


def test_a_server_may_say_that_it_is_no_single_page() -> None:
    fields = {"kind": "python", "start": ["python", "main.py"], "spa": False}

    assert not parse_manifest(fields).spa


def test_a_script_that_the_start_command_names_must_be_there() -> None:
    manifest = parse_manifest({"kind": "python", "start": ["python", "./app/main.py"]})
    check_entry(manifest, {"app/main.py"})

    with pytest.raises(BundleInvalid, match="no such file"):
        check_entry(manifest, {"main.py"})


def test_the_worst_manifest_takes_little_memory() -> None:
    head, tail = b'{"kind": "static", "x": [', b"[]]}"
    raw = head + b"[]," * ((MANIFEST_MAX_BYTES - len(head) - len(tail)) // 3) + tail
    assert MANIFEST_MAX_BYTES - 3 < len(raw) <= MANIFEST_MAX_BYTES
    tracemalloc.start()
    try:
        assert read_manifest(raw).kind is AppKind.STATIC
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * 1024**2
