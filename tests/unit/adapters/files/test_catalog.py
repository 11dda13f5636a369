"""The catalog: a folder of templates, checked when it is read."""

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


def template(folder: Path, name: str, **changes: Any) -> Path:
    place = folder / name
    place.mkdir()
    (place / "spawn.json").write_text(json.dumps({**MANIFEST, **changes}), "utf-8")
    (place / "index.html").write_text(f"<h1>{name}</h1>")
    return place


def test_a_template_says_what_its_manifest_says(tmp_path: Path) -> None:
    template(tmp_path, "kanban")
    (found,) = FolderCatalog(tmp_path).list()
    assert (found.name, found.title, found.description) == (
        "kanban",
        "Kanban board",
        "Columns and cards.",
    )
    assert (found.kind, found.keywords) == ("static", ("kanban", "task board"))
    assert (found.emoji, found.accent) == ("K", "#0f766e")


def test_a_template_is_found_by_name_and_its_bytes_by_digest(tmp_path: Path) -> None:
    place = template(tmp_path, "kanban")
    catalog = FolderCatalog(tmp_path)
    found = catalog.get("kanban")
    assert found is not None
    data = catalog.data(found.digest)
    assert data == bundle_store.pack(place)
    assert (found.digest, found.size_bytes) == (bundle_store.digest_of(data), len(data))


def test_what_is_not_in_the_catalog_is_none(tmp_path: Path) -> None:
    template(tmp_path, "kanban")
    catalog = FolderCatalog(tmp_path)
    assert catalog.get("../kanban") is None
    assert catalog.get("snake") is None
    assert catalog.data(Sha256("0" * 64)) is None


def test_templates_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        template(tmp_path, name)
    assert [one.name for one in FolderCatalog(tmp_path).list()] == ["a", "b", "c"]


def test_a_folder_without_a_manifest_is_no_template(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    assert FolderCatalog(tmp_path).list() == ()


def test_a_template_that_would_be_refused_as_a_bundle_stops_the_start(tmp_path: Path) -> None:
    template(tmp_path, "bad", kind="ruby")
    with pytest.raises(errors.InvalidInput):
        FolderCatalog(tmp_path)


def test_a_template_that_lacks_a_field_stops_the_start(tmp_path: Path) -> None:
    place = template(tmp_path, "bad")
    said = {name: value for name, value in MANIFEST.items() if name != "keywords"}
    (place / "spawn.json").write_text(json.dumps(said), "utf-8")
    with pytest.raises(KeyError, match="keywords"):
        FolderCatalog(tmp_path)


def test_the_digest_of_a_template_changes_with_its_files_alone(tmp_path: Path) -> None:
    place = template(tmp_path, "kanban")
    before = FolderCatalog(tmp_path).list()[0].digest
    (place / "index.html").touch()
    assert FolderCatalog(tmp_path).list()[0].digest == before
    (place / "index.html").write_text("other")
    assert FolderCatalog(tmp_path).list()[0].digest != before
