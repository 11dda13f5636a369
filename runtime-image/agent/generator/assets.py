"""Which files of the app a page loads: those in its HTML, its style sheets and its modules. Pure.

Used by `checker.py`.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote, urljoin, urlsplit

# The rels whose target a browser fetches for the page itself.
_LINKS = frozenset(
    {"stylesheet", "icon", "apple-touch-icon", "manifest", "modulepreload", "preload"}
)
_SOURCES = {
    **dict.fromkeys(("script", "img", "source", "audio", "track", "iframe", "embed"), ("src",)),
    "video": ("src", "poster"),
    "object": ("data",),
}
_SRCSETS = frozenset({"img", "source"})
# One candidate of a srcset. A comma within its address, as in `data:`, doesn't end it.
_CANDIDATE = re.compile(r"[\s,]*(?:([^\s,]\S*?),+(?!\S)|([^\s,]\S*)(?:\s+[^\s,]+)*)")
_UNSEEN = frozenset({"template", "noscript"})  # loaded by no browser, or by none that runs scripts
_CSS_URL = re.compile(
    r"""@import\s*(?:"([^"]*)"|'([^']*)')|url\(\s*(?:"([^"]*)"|'([^']*)'|([^'")\s]*))\s*\)"""
)
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# What may come before an import, and an import. Only those at the head of a module are read:
# further down, what looks like one may be text.
_BLANK = re.compile(r"""(?:[\s;]|//[^\n]*|/\*.*?\*/|"use strict"|'use strict')*+""", re.DOTALL)
_IMPORT = re.compile(
    r"""(?:import|export)\b(?:[\w$*{},\s]*?\bfrom)?\s*(?:"([^"\n]*)"|'([^'\n]*)')"""
    r"""(?:\s*with\s*\{[^{}]*\})?"""
)
_BARE = re.compile(r"(?!\.{0,2}/|https?:)")  # the name of a package, for an import map
_ORIGIN = "http://app"
_UNQUOTED = "/?%:@!$&'()*+,;=~[]|"  # a browser sends these as they are


def assets_of_page(html: str, path: str) -> list[str]:
    """Paths on the page's own origin, in order of appearance, each once."""
    parser = _Assets()
    parser.feed(html)
    parser.close()
    base = urljoin(_ORIGIN + path, parser.base)
    imports = [target for script in parser.modules for target in _in_script("".join(script))]
    return _own_paths([*parser.targets, *_in_css("".join(parser.styles)), *imports], base)


def assets_of_sheet(css: str, path: str) -> list[str]:
    """The same for a style sheet."""
    return _own_paths(_in_css(css), _ORIGIN + path)


def assets_of_script(script: str, path: str) -> list[str]:
    """The same for a script: what it imports, if it is a module."""
    return _own_paths(_in_script(script), _ORIGIN + path)


class _Assets(HTMLParser):
    """Collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.base = ""
        self.targets: list[str] = []
        self.styles: list[str] = []
        self.modules: list[list[str]] = []  # each in the pieces in which it came
        self._unseen = 0
        self._in_style = False
        self._in_module = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self._in_module = tag == "script" and values.get("type", "").strip().lower() == "module"
        if tag in _UNSEEN:
            self._unseen += 1
        elif self._unseen:
            return
        elif tag == "base":
            self.base = values.get("href", "")
        elif tag == "link" and _LINKS & set(values.get("rel", "").lower().split()):
            self.targets.append(values.get("href", ""))
        elif self._in_module and "src" not in values:
            self.modules.append([])
        elif tag == "iframe" and "srcdoc" in values:
            return
        elif tag in _SOURCES or (tag == "input" and values.get("type", "").lower() == "image"):
            self.targets += [values.get(name, "") for name in _SOURCES.get(tag, ("src",))]
            if tag in _SRCSETS:
                self.targets += _in_srcset(values.get("srcset", ""))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_module = False
        if tag in _UNSEEN and self._unseen:
            self._unseen -= 1

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._in_style:
            self.styles.append(data)
        elif self._in_module and self.modules:
            self.modules[-1].append(data)


def _in_css(css: str) -> list[str]:
    matches = _CSS_URL.finditer(_CSS_COMMENT.sub("", css))
    return ["".join(group or "" for group in match.groups()) for match in matches]


def _in_srcset(srcset: str) -> list[str]:
    return [match[1] or match[2] for match in _CANDIDATE.finditer(srcset)]


def _in_script(script: str) -> list[str]:
    """The targets of the imports at the head of a module, but for those of packages."""
    targets = []
    at = _end_of_blank(script, 0)
    while (match := _IMPORT.match(script, at)) is not None:
        targets.append(match[1] or match[2] or "")
        at = _end_of_blank(script, match.end())
    return [target for target in targets if not _BARE.match(target)]


def _end_of_blank(script: str, start: int) -> int:
    blank = _BLANK.match(script, start)
    return blank.end() if blank is not None else start


def _own_paths(targets: list[str], base: str) -> list[str]:
    paths: dict[str, None] = {}
    for target in map(str.strip, targets):
        if not target or target.startswith("#"):
            continue
        try:
            parts = urlsplit(urljoin(base, target))
        except ValueError:
            continue
        if f"{parts.scheme}://{parts.netloc}" == _ORIGIN:
            query = f"?{parts.query}" if parts.query else ""
            paths[quote((parts.path or "/") + query, safe=_UNQUOTED)] = None
    return list(paths)
