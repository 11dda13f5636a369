"""Finds the template that a prompt asks for, or the one nearest to it. Pure.

Called when a session is created, and when it failed because no provider could write its app.
"""

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


def find_match(prompt: str, templates: Sequence[Template]) -> Template | None:
    """The template whose keyword is the whole prompt, small words aside; None if in doubt.

    A longer prompt describes something special, and a template would ignore that. So a prompt
    matches only if it is short and nothing but filler is left beside the keyword. The longest
    keyword wins.
    """
    words = _words(prompt)
    if not words or len(words) > _WORDS_MAX + 4:
        return None
    best: tuple[int, Template] | None = None
    for template in templates:
        for keyword in (template.name, template.title, *template.keywords):
            keyword_words = _words(keyword)
            rest = _without(words, keyword_words)
            if rest is None or any(word not in _FILLER for word in rest):
                continue
            if best is None or len(keyword_words) > best[0]:
                best = (len(keyword_words), template)
    return best[1] if best else None


def find_nearest(prompt: str, templates: Sequence[Template]) -> Template | None:
    """The template that shares most words with the prompt; None if no template shares any.

    A word of the name, title or keywords counts one, a word of the description alone a half.
    """
    prompt_words = set(_words(prompt)) - _FILLER
    best: tuple[float, Template] | None = None
    for template in templates:
        keywords = set(_words(" ".join((template.name, template.title, *template.keywords))))
        description = set(_words(template.description)) - keywords
        score = len(prompt_words & keywords) + len(prompt_words & description) / 2
        if score and (best is None or score > best[0]):
            best = (score, template)
    return best[1] if best else None


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower().replace("-", " "))


def _without(words: list[str], phrase: list[str]) -> list[str] | None:
    """The words around the first occurrence of `phrase`; None if it doesn't occur."""
    if not phrase:
        return None
    for start in range(len(words) - len(phrase) + 1):
        if words[start : start + len(phrase)] == phrase:
            return words[:start] + words[start + len(phrase) :]
    return None
