"""Which files of the app a page loads: those in its HTML and in its style sheets. Pure.

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
_SOURCES = {"script": "src", "img": "src", "source": "src", "video": "src", "audio": "src"}
_CSS_URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^'")\s]*))\s*\)""")
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ORIGIN = "http://app"
_UNQUOTED = "/?%:@!$&'()*+,;=~[]|"  # a browser sends these as they are


def assets_of_page(html: str, path: str) -> list[str]:
    """Paths on the page's own origin, in order of appearance, each once."""
    parser = _Assets()
    parser.feed(html)
    parser.close()
    base = urljoin(_ORIGIN + path, parser.base)
    return _own_paths([*parser.targets, *_in_css("".join(parser.styles))], base)


def assets_of_sheet(css: str, path: str) -> list[str]:
    """The same for a style sheet."""
    return _own_paths(_in_css(css), _ORIGIN + path)


class _Assets(HTMLParser):
    """Collects what a browser would load. It doesn't load what is inside a template."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.base = ""
        self.targets: list[str] = []
        self.styles: list[str] = []
        self._templates = 0
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        if tag == "template":
            self._templates += 1
        elif self._templates:
            return
        elif tag == "base":
            self.base = values.get("href", "")
        elif tag == "link" and _LINKS & set(values.get("rel", "").lower().split()):
            self.targets.append(values.get("href", ""))
        elif tag in _SOURCES:
            self.targets.append(values.get(_SOURCES[tag], ""))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        if tag == "template" and self._templates:
            self._templates -= 1

    def handle_data(self, data: str) -> None:
        if self._in_style and not self._templates:
            self.styles.append(data)


def _in_css(css: str) -> list[str]:
    matches = _CSS_URL.finditer(_CSS_COMMENT.sub("", css))
    return ["".join(group or "" for group in match.groups()) for match in matches]


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
