"""The catalog: a folder of templates, validated when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.files import bundle_store
from orchestrator.adapters.files.catalog import FolderCatalog
from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256

MANIFEST = {
    "kind": "static",
    "name": "kanban",
    "title": "Kanban board",
    "description": "Columns and cards.",
    "keywords": ["kanban", "task board"],
    "emoji": "K",
    "accent": "#0f766e",
}


def make_template(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / name
    path.mkdir()
    (path / "spawn.json").write_text(json.dumps({**MANIFEST, **changes}), "utf-8")
    (path / "index.html").write_text(f"<h1>{name}</h1>")
    return path


def test_a_template_has_the_fields_of_its_manifest(tmp_path: Path) -> None:
    make_template(tmp_path, "kanban")
    (template,) = FolderCatalog(tmp_path).list()
    assert (template.name, template.title, template.description) == (
        "kanban",
        "Kanban board",
        "Columns and cards.",
    )
    assert (template.kind, template.keywords) == ("static", ("kanban", "task board"))
    assert (template.emoji, template.accent) == ("K", "#0f766e")


def test_a_template_is_found_by_name_and_its_bytes_by_digest(tmp_path: Path) -> None:
    path = make_template(tmp_path, "kanban")
    catalog = FolderCatalog(tmp_path)
    template = catalog.get("kanban")
    assert template is not None
    data = catalog.data(template.digest)
    assert data == bundle_store.pack(path)
    assert (template.digest, template.size_bytes) == (bundle_store.digest_of(data), len(data))


def test_an_unknown_template_is_none(tmp_path: Path) -> None:
    make_template(tmp_path, "kanban")
    catalog = FolderCatalog(tmp_path)
    assert catalog.get("../kanban") is None
    assert catalog.get("snake") is None
    assert catalog.data(Sha256("0" * 64)) is None


def test_templates_are_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        make_template(tmp_path, name)
    assert [template.name for template in FolderCatalog(tmp_path).list()] == ["a", "b", "c"]


def test_a_folder_without_a_manifest_is_no_template(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    assert FolderCatalog(tmp_path).list() == ()


def test_a_template_that_would_be_refused_as_a_bundle_stops_the_start(tmp_path: Path) -> None:
    make_template(tmp_path, "bad", kind="ruby")
    with pytest.raises(errors.InvalidInput):
        FolderCatalog(tmp_path)


def test_a_template_that_lacks_a_field_stops_the_start(tmp_path: Path) -> None:
    path = make_template(tmp_path, "bad")
    fields = {name: value for name, value in MANIFEST.items() if name != "keywords"}
    (path / "spawn.json").write_text(json.dumps(fields), "utf-8")
    with pytest.raises(KeyError, match="keywords"):
        FolderCatalog(tmp_path)


def test_the_digest_of_a_template_changes_with_its_files_alone(tmp_path: Path) -> None:
    path = make_template(tmp_path, "kanban")
    before = FolderCatalog(tmp_path).list()[0].digest
    (path / "index.html").touch()
    assert FolderCatalog(tmp_path).list()[0].digest == before
    (path / "index.html").write_text("other")
    assert FolderCatalog(tmp_path).list()[0].digest != before
