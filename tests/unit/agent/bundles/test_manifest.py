"""`spawn.json`: which kinds and start commands are taken."""

from __future__ import annotations

import pytest
from agent.bundles.manifest import (
    AppKind,
    ManifestInvalid,
    check_entry,
    parse_manifest,
    read_manifest,
)


def test_a_start_command_gets_port_and_host_filled_in() -> None:
    start = ["uvicorn", "main:app", "--host=$HOST", "--port", "${PORT}"]
    manifest = parse_manifest({"kind": "python", "start": start, "title": "T", "surplus": 1})

    command = manifest.command(host="127.0.0.1", port=3001)
    assert command == ["uvicorn", "main:app", "--host=127.0.0.1", "--port", "3001"]


def test_a_static_app_needs_no_start_command_and_ignores_one() -> None:
    manifest = parse_manifest({"kind": "static", "start": ["rm", "-rf", "/"]})

    assert (manifest.kind, manifest.start) == (AppKind.STATIC, ())


def test_a_written_manifest_reads_back_the_same() -> None:
    manifest = parse_manifest({"kind": "node", "start": ["node", "server.js"], "title": "Größe"})

    assert read_manifest(manifest.as_json()) == manifest


@pytest.mark.parametrize(
    "start",
    [
        None,
        [],
        "python main.py",
        ["python", 3],
        ["bash", "-c", "true"],
        ["/usr/bin/python", "main.py"],
        ["python", "/etc/passwd"],
        ["python", "../other.py"],
        ["gunicorn", "--config=/etc/passwd"],
        ["gunicorn", "--chdir=../.."],
        ["python"] * 100,
    ],
)
def test_a_start_command_that_is_no_interpreter_in_the_folder_is_refused(start: object) -> None:
    with pytest.raises(ManifestInvalid, match="start"):
        parse_manifest({"kind": "python", "start": start})


@pytest.mark.parametrize("document", [None, [], {}, {"kind": "php"}, {"kind": ["static"]}])
def test_an_unknown_kind_is_refused(document: object) -> None:
    with pytest.raises(ManifestInvalid):
        parse_manifest(document)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b" " * 70_000])
def test_bytes_that_are_no_json_are_refused(raw: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        read_manifest(raw)


def test_a_script_that_the_start_command_names_must_be_there() -> None:
    manifest = parse_manifest({"kind": "python", "start": ["python", "./app/main.py"]})
    check_entry(manifest, {"app/main.py"})

    with pytest.raises(ManifestInvalid, match="no such file"):
        check_entry(manifest, {"main.py"})
