"""Which template a prompt asks for, or comes nearest to. Pure; called when a session is admitted,
and when it failed because nobody could write its app."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.ports import Template

_WORDS_MAX = 8
_FILLER = frozenset(
    """
    a an the me my our us please can could you i want would like need to make build create give
    show new simple small nice little basic app application web page website site tool with for
    some get start spawn up of and game board
    """.split()  # noqa: SIM905 - a word list reads better as words
)


def asked_for(prompt: str, templates: Sequence[Template]) -> Template | None:
    """The template whose keyword the prompt is, give or take small words; None when in doubt.

    A longer prompt says what is special about the app that is wanted, and a template would ignore
    it; so a match needs a short prompt that has nothing left beside the keyword.
    """
    words = _words(prompt)
    if not words or len(words) > _WORDS_MAX + 4:
        return None
    best: tuple[int, Template] | None = None
    for template in templates:
        for keyword in (template.name, template.title, *template.keywords):
            wanted = _words(keyword)
            rest = _without(words, wanted)
            if rest is None or any(word not in _FILLER for word in rest):
                continue
            if best is None or len(wanted) > best[0]:
                best = (len(wanted), template)
    return best[1] if best else None


def nearest(prompt: str, templates: Sequence[Template]) -> Template | None:
    """The template that has most words in common with a prompt; None when none has any."""
    asked = set(_words(prompt)) - _FILLER
    best: tuple[float, Template] | None = None
    for template in templates:
        named = set(_words(" ".join((template.name, template.title, *template.keywords))))
        told = set(_words(template.description)) - named
        score = len(asked & named) + len(asked & told) / 2
        if score and (best is None or score > best[0]):
            best = (score, template)
    return best[1] if best else None


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower().replace("-", " "))


def _without(words: list[str], wanted: list[str]) -> list[str] | None:
    """The words around one occurrence of `wanted`, or None when it doesn't occur."""
    if not wanted:
        return None
    for at in range(len(words) - len(wanted) + 1):
        if words[at : at + len(wanted)] == wanted:
            return words[:at] + words[at + len(wanted) :]
    return None
