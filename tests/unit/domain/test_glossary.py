"""The glossary in orchestrator/domain/__init__.py names things that exist."""

from __future__ import annotations

import pkgutil
import re

import pytest

from orchestrator import domain

_OUTSIDE = {"services", "loops", "ports"}
_LISTS = re.compile(r"\nNouns\n\n(?P<nouns>.+)\n\nVerbs\n\n(?P<verbs>.+)", re.DOTALL)
_NAME = re.compile(r"`(\w+(?:\.\w+)+)`")


def entries(name: str) -> list[str]:
    """The lines of one of the two lists."""
    lists = _LISTS.search(domain.__doc__ or "")
    assert lists is not None
    return lists[name].strip().splitlines()


@pytest.mark.parametrize("entry", [*entries("nouns"), *entries("verbs")])
def test_each_entry_names_the_thing_that_carries_the_word(entry: str) -> None:
    (name,) = _NAME.findall(entry)
    package = "orchestrator" if name.split(".")[0] in _OUTSIDE else "orchestrator.domain"
    pkgutil.resolve_name(f"{package}.{name}")


@pytest.mark.parametrize("name", ["nouns", "verbs"])
def test_no_word_is_explained_twice(name: str) -> None:
    words = [entry.split("  ")[0] for entry in entries(name)]
    assert len(words) == len(set(words))
