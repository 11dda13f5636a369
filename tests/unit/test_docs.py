"""Links, settings, make targets and commands that the documents name really exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from orchestrator import config
from orchestrator.entrypoints.cli import main

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "ops", "bench", "proxy", "deploy", "runtime-image")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
)
TITLES = ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY")

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SETTING = re.compile(r"\b(?:SPAWN_(?!TEST_)|ANTHROPIC_)[A-Z0-9_]+\b")  # but those of our own tests
_MAKE = re.compile(r"(?:^|[\s;&])make ((?:[a-z0-9-]+ ?)+)", re.MULTILINE)
_SPAWNCTL = re.compile(r"(?:^|[\s/(;])spawnctl ((?:\\\||[^`|;)#])+)", re.MULTILINE)

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)


@every_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    text = _FENCED.sub("", document.read_text("utf-8"))
    links = [link.partition("#")[0] for link in _LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []


@every_document
def test_every_setting_that_is_named_exists(document: Path) -> None:
    settings = {"SPAWN_STATE_DIR"}
    for _, field, info in config.fields():
        settings.update(config.variables(field, info))
    assert set(_SETTING.findall(document.read_text("utf-8"))) - settings == set()


@every_document
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for code in code_of(document)
        for arguments in _MAKE.findall(code)
        for word in arguments.split()
    }
    assert named - targets == set()


@every_document
def test_every_spawnctl_command_that_is_named_exists(document: Path) -> None:
    wrong = [
        line
        for code in code_of(document)
        for line in _SPAWNCTL.findall(code)
        if not is_command(line)
    ]
    assert wrong == []


@pytest.mark.parametrize("line", ["nonsense", "sessions nonsense", "run --nonsense"])
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    assert not is_command(line)


def test_the_documents_are_all_there() -> None:
    assert {f"{title}.md" for title in TITLES} <= {path.name for path in DOCUMENTS}
    decisions = sorted((ROOT / "ops" / "adr").glob("0*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    index = (ROOT / "ops" / "adr" / "README.md").read_text("utf-8")
    assert [path.name for path in decisions if f"({path.name})" not in index] == []


def code_of(document: Path) -> Iterator[str]:
    """The code blocks and code spans of a document. In prose, "make sure" is not a command."""
    text = document.read_text("utf-8")
    yield from _FENCED.findall(text)
    yield from _SPAN.findall(_FENCED.sub("", text))


def is_command(line: str) -> bool:
    """Whether spawnctl has this command, its subcommand and its options."""
    words = shlex.split(line.splitlines()[0].replace("\\|", "|"))
    command = typer.main.get_command(main.build(words))
    while (subcommands := getattr(command, "commands", None)) and words and words[0][0] != "-":
        command = subcommands.get(words.pop(0))
    if command is None:
        return False
    options = {"--help", "-h"}
    for parameter in command.params:
        options.update((*parameter.opts, *parameter.secondary_opts))
    return all(word in options for word in words if word.startswith("-"))
