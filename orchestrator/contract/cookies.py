"""The cookies that a browser sends back, for one walk through an app. Pure; used by `health`.

As in RFC 6265, but for time: a cookie lasts as long as the walk, unless it is deleted. A browser
takes `Secure` cookies without TLS from its own machine alone.
"""

from __future__ import annotations

import re

HEADER_MAX_CHARS = 16_000
_COOKIES_MAX = 50
_CHARS_MAX = 4096  # of a name and its value, as in Chromium
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONG_AGO = re.compile(r"[ -](?:19)?70\b")  # how `Expires` says that a cookie is to be deleted


class Cookies:
    """Those of one host. `take` what answers set, and send `header`."""

    def __init__(self, host: str, scheme: str) -> None:
        """`host` may have a port."""
        self._name = re.sub(r":\d+$", "", host.lower())
        local = self._name == "localhost" or self._name.endswith(".localhost")
        self._is_safe = scheme == "https" or local
        self._values: dict[tuple[str, str], str] = {}  # by name and path

    def take(self, line: str, path: str) -> None:
        """Keep or delete the cookie of one `Set-Cookie`, in the answer to a request for `path`."""
        pair, *rest = line.split(";")
        name, equals, value = pair.partition("=")
        name, value = name.strip(), value.strip()
        attributes = _attributes(rest)
        domain = attributes.get("domain", "").removeprefix(".").lower()
        if not equals or _CONTROL.search(pair) or len(name) + len(value) > _CHARS_MAX:
            return
        if domain and not f".{self._name}".endswith(f".{domain}"):
            return
        if "secure" in attributes and not self._is_safe:
            return
        below = attributes.get("path", "")
        key = (name, below if below.startswith("/") else _folder(path))
        if _is_deleted(attributes):
            self._values.pop(key, None)
        elif key in self._values or len(self._values) < _COOKIES_MAX:
            self._values[key] = value

    def header(self, path: str) -> str:
        """The `Cookie` of a request for this path; "" if it has none."""
        path = path.partition("?")[0]
        sent = ""
        # Those with longer paths first, as servers expect it.
        for (name, below), value in sorted(self._values.items(), key=lambda item: -len(item[0][1])):
            pair = f"; {name}={value}" if sent else f"{name}={value}"
            if _is_below(path, below) and len(sent) + len(pair) <= HEADER_MAX_CHARS:
                sent += pair
        return sent


def _attributes(parts: list[str]) -> dict[str, str]:
    attributes = {}
    for part in parts:
        name, _, value = part.partition("=")
        attributes[name.strip().lower()] = value.strip()
    return attributes


def _is_deleted(attributes: dict[str, str]) -> bool:
    age = attributes.get("max-age", "")
    if re.fullmatch(r"-?\d+", age):
        return age.startswith("-") or not age.strip("0")
    return bool(_LONG_AGO.search(attributes.get("expires", "")))


def _folder(path: str) -> str:
    return path.partition("?")[0].rpartition("/")[0] or "/"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")
