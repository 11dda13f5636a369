"""Compares the tags of `If-None-Match` with that of an answer. The status of a session uses it.

Tags compare weakly (RFC 9110, 13.1.2): a proxy that compresses an answer makes its tag weak, and
the client sends back what it got.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers

_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, kw_only=True)
class KnownTags:
    """The tags of the answers that a client has."""

    tags: frozenset[str] = frozenset()  # in quotes, without the mark of weakness
    any: bool = False  # `*`: whatever there is

    def __bool__(self) -> bool:
        return self.any or bool(self.tags)

    def __contains__(self, tag: str) -> bool:
        return self.any or _tags_in([tag]) <= self.tags


def known_tags(headers: Headers) -> KnownTags:
    """What `If-None-Match` names. What is no tag matches none."""
    values = headers.getlist("if-none-match")
    return KnownTags(tags=_tags_in(values), any="*" in (value.strip() for value in values))


def _tags_in(values: Sequence[str]) -> frozenset[str]:
    return frozenset(tag for value in values for tag in _TAG.findall(value))
