"""Every built-in template is a valid, self-contained bundle that prompts can find."""

from __future__ import annotations

import ast
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.adapters.files import bundle_store
from orchestrator.adapters.files.catalog import FolderCatalog
from orchestrator.services.sessions import templates

CATALOG = Path(orchestrator.__file__).parent / "catalog"
FOLDERS = sorted(path.parent for path in CATALOG.glob("*/spawn.json"))
LARGEST_BYTES = 60_000
STANDARD_LIBRARY = sys.stdlib_module_names
TEXT = {".html", ".css", ".js", ".py", ".json", ".svg"}

# What makes a browser fetch: an address in one of these must lie in the app's own folder.
OUTSIDE = r"""(?:[a-z]+:)?//"""
CSS_LOAD = re.compile(rf"""(?:url\(|@import)\s*['"]?{OUTSIDE}""", re.IGNORECASE)
JS_LOAD = re.compile(
    rf"""(?:fetch|import|importScripts|EventSource|WebSocket|Worker|open)\s*\(?\s*['"`]{OUTSIDE}"""
    rf"""|\bfrom\s*['"]{OUTSIDE}|\.src\s*=\s*['"`]{OUTSIDE}""",
    re.IGNORECASE,
)
LOADING_ATTRIBUTES = {
    "script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src",
    "audio": "src", "video": "src", "embed": "src", "object": "data", "form": "action",
}  # fmt: skip


def manifest_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "spawn.json").read_text("utf-8"))
    return loaded


def name_of(folder: Path) -> str:
    return folder.name


each_template = pytest.mark.parametrize("folder", FOLDERS, ids=name_of)


class Page(HTMLParser):
    """The tags of a document with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def loads(self) -> list[str]:
        wanted = [(attrs, LOADING_ATTRIBUTES.get(tag, "")) for tag, attrs in self.tags]
        return [attrs[name] for attrs, name in wanted if name in attrs]


def pages_of(folder: Path) -> list[tuple[Path, Page]]:
    return [(path, Page(path.read_text("utf-8"))) for path in sorted(folder.rglob("*.html"))]


def test_the_catalog_has_the_ten_templates() -> None:
    assert [folder.name for folder in FOLDERS] == [
        "dashboard", "kanban", "landing", "markdown", "notes",
        "poll", "pomodoro", "shortener", "snake", "todo",
    ]  # fmt: skip


def test_every_folder_of_the_catalog_is_a_template() -> None:
    folders = {path for path in CATALOG.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders == set(FOLDERS)


@each_template
def test_a_template_is_a_bundle_that_agents_accept(folder: Path) -> None:
    accepted = bundle_store.inspect(bundle_store.pack(folder))
    manifest = manifest_of(folder)
    assert accepted.kind == manifest["kind"]
    assert accepted.title == manifest["title"]
    assert list(accepted.start) == manifest.get("start", [])


@each_template
def test_a_manifest_says_what_the_gallery_shows(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert manifest["name"] == folder.name
    assert 3 <= len(manifest["title"]) <= 40
    assert re.fullmatch(r"[A-Z][^.!?]{30,110}\.", manifest["description"])
    assert re.fullmatch(r"#[0-9a-f]{6}", manifest["accent"])
    assert manifest["emoji"]
    assert not manifest["emoji"].isascii()


@each_template
def test_a_static_template_has_a_first_page_and_a_server_has_a_program(folder: Path) -> None:
    manifest = manifest_of(folder)
    if manifest["kind"] == "static":
        assert (folder / "index.html").is_file()
        assert "start" not in manifest
    else:
        program, file = manifest["start"]
        assert program == {"python": "python", "node": "node"}[manifest["kind"]]
        assert (folder / file).is_file()


def test_accents_and_emoji_tell_the_templates_apart() -> None:
    manifests = [manifest_of(folder) for folder in FOLDERS]
    for field in ("accent", "emoji", "title", "description"):
        assert len({manifest[field] for manifest in manifests}) == len(FOLDERS), field


def test_no_keyword_belongs_to_two_templates() -> None:
    owners: dict[str, str] = {}
    for folder in FOLDERS:
        keywords = manifest_of(folder)["keywords"]
        assert len(keywords) >= 5
        for keyword in keywords:
            assert keyword == keyword.lower().strip()
            assert owners.setdefault(keyword, folder.name) == folder.name
    assert len(owners) == sum(len(manifest_of(folder)["keywords"]) for folder in FOLDERS)


@each_template
def test_each_keyword_of_a_template_finds_it(folder: Path) -> None:
    known = FolderCatalog(CATALOG).list()
    for keyword in manifest_of(folder)["keywords"]:
        for prompt in (
            keyword,
            f"Please make me a {keyword}",
            f"Build a simple {keyword.upper()}!",
        ):
            found = templates.find_match(prompt, known)
            assert found is not None, prompt
            assert found.name == folder.name, prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "a website about snakes",
        "a board game about kanban in 1950s Japan",
        "a todo list that syncs with my calendar and sends emails",
        "an app to poll sensors over MQTT",
    ],
)
def test_a_prompt_that_wants_something_of_its_own_gets_no_template(prompt: str) -> None:
    assert templates.find_match(prompt, FolderCatalog(CATALOG).list()) is None


@each_template
def test_a_template_is_small(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in TEXT]
    assert 0 < sum(path.stat().st_size for path in files) < LARGEST_BYTES


@each_template
def test_a_template_holds_text_files_only(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not path.is_symlink()
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.suffix in TEXT, path
            path.read_text("utf-8")


@each_template
def test_nothing_is_loaded_from_outside(folder: Path) -> None:
    for path, page in pages_of(folder):
        for address in page.loads():
            assert not re.match(rf"{OUTSIDE}|/", address), f"{path.name} loads {address}"
    for path in sorted([*folder.rglob("*.css"), *folder.rglob("*.html"), *folder.rglob("*.svg")]):
        assert not CSS_LOAD.search(path.read_text("utf-8")), path
    for path in sorted([*folder.rglob("*.js"), *folder.rglob("*.html")]):
        assert not JS_LOAD.search(path.read_text("utf-8")), path


@pytest.mark.parametrize(
    "source",
    ['fetch("https://x.example/a")', 'import "//x.example/a.js"', "import x from 'http://x/y'"],
)
def test_the_check_for_outside_addresses_sees_scripts_that_load(source: str) -> None:
    assert JS_LOAD.search(source)
    assert CSS_LOAD.search("@import 'https://x.example/a.css'")
    assert CSS_LOAD.search("background: url(//x.example/a.png)")


@pytest.mark.parametrize(
    "folder", [f for f in FOLDERS if manifest_of(f)["kind"] == "static"], ids=name_of
)
def test_what_a_static_page_loads_is_in_its_folder(folder: Path) -> None:
    ((_, page),) = pages_of(folder)
    assert len(page.loads()) >= 3  # an icon, a style sheet, a script
    for address in page.loads():
        assert (folder / address).is_file(), address


@each_template
def test_pages_have_no_inline_handlers_or_scripts(folder: Path) -> None:
    for path, page in pages_of(folder):
        for tag, attributes in page.tags:
            handlers = [name for name in attributes if name.startswith("on")]
            assert not handlers, f"{path.name}: <{tag} {handlers[0]}>"
            assert tag != "script" or "src" in attributes, path
            assert "javascript:" not in " ".join(attributes.values()).lower()


@each_template
def test_a_first_page_is_ready_for_phones_and_screen_readers(folder: Path) -> None:
    sources = [path.read_text("utf-8") for path in folder.rglob("*") if path.suffix in TEXT]
    everything = "\n".join(sources)
    assert '<html lang="en">' in everything
    assert 'content="width=device-width, initial-scale=1"' in everything
    assert "<title>" in everything
    assert "prefers-color-scheme: dark" in everything
    assert ":focus-visible" in everything


@each_template
def test_fields_have_names(folder: Path) -> None:
    for path, page in pages_of(folder):
        labelled = {attrs["for"] for tag, attrs in page.tags if tag == "label" and "for" in attrs}
        for tag, attributes in page.tags:
            if tag not in {"textarea", "select", "input"} or attributes.get("type") == "hidden":
                continue
            named = attributes.get("id") in labelled or "aria-label" in attributes
            assert named or is_wrapped_in_label(path, attributes, tag), (path, attributes)


def is_wrapped_in_label(path: Path, attributes: dict[str, str], tag: str) -> bool:
    """Whether this field stands inside a <label>, or in a <template> that a script completes."""
    text = path.read_text("utf-8")
    inside = re.findall(r"<(?:label|template)\b.*?</(?:label|template)>", text, re.DOTALL)
    value = attributes.get("id") or attributes.get("name") or attributes.get("type", "")
    return any(f"<{tag}" in part and value in part for part in inside)


@each_template
def test_python_programs_import_only_what_every_sandbox_has(folder: Path) -> None:
    allowed = {"fastapi", "pydantic", "starlette", "uvicorn", "jinja2"}
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                top = module.split(".", maxsplit=1)[0]
                assert top in allowed or top in STANDARD_LIBRARY, f"{path} imports {module}"


@each_template
def test_node_programs_require_only_node_itself_and_their_own_files(folder: Path) -> None:
    for path in folder.rglob("*.js"):
        for module in re.findall(r"""require\(['"]([^'"]+)['"]\)""", path.read_text("utf-8")):
            assert module.startswith(("node:", "./")), f"{path} requires {module}"
