"""What "this app is well" means: the one rule for all who ask.

An app is well if somebody who opens its address gets something to see or a way to log in. The check
of a version that is being written, the agent that starts a version and the control plane that
probes the public address all hand the answers to a `Walk`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urljoin, urlsplit

from orchestrator.contract.cookies import Cookies
from orchestrator.contract.front_pages import FrontPage
from orchestrator.contract.heads import HEAD_MAX_BYTES

PATIENCE_S = 10.0
"""How long somebody waits for the first page, redirects included. For all who ask: the check, the
trial of a version, and whoever walks a new, moved or restored app."""
ENDLESS_AFTER_S = 2.0
"""An answer that goes on for longer than this after its head is judged by what has come."""
REDIRECTS_MAX = 4
BROWSER_HEADERS = (
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) SpawnAI-Check/1",
    ),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Site", "none"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-User", "?1"),
    ("Sec-Fetch-Dest", "document"),
)
"""Of somebody who opens a link. `Accept-Encoding` goes with what the sender can read."""
PART_HEADERS = (
    *(header for header in BROWSER_HEADERS if header[0] in ("User-Agent", "Accept-Language")),
    ("Accept", "*/*"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Mode", "no-cors"),
)
"""The same for a part of a page."""
_PASSWORD = re.compile(r"(?:^|,)\s*(?:basic|digest|negotiate|ntlm)\b", re.IGNORECASE)
"""The schemes of WWW-Authenticate for which a browser asks its user."""
_SCHEME = re.compile(r"^(?!https?:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)
"""Of an address that no refresh leads to: the page stays."""
_HOSTS_OF_A_VISITOR = ("localhost", "::1", "0.0.0.0", "::")  # compared, not bound
_WITHOUT_BODY = (204, 205)


class Condition(StrEnum):
    """What a walk has shown of an app."""

    WELL = "well"
    UNWELL = "unwell"  # it answers, but not what a visitor can use
    SILENT = "silent"  # no answer yet
    UNREACHED = "unreached"  # the request didn't get to the app, which is not its fault


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What counts of the answer to a GET."""

    status: int
    location: str | None = None
    challenge: str = ""  # all its WWW-Authenticate, with commas between them
    is_empty: bool = False  # its body has ended and has no bytes
    page: str = ""  # the mark of a page that isn't the app's
    cookies: tuple[str, ...] = ()  # each of its Set-Cookie
    breaks_off: bool = False  # its body ends before its end
    unreadable: str = ""  # its Content-Encoding, if the body isn't that
    refresh: str | None = None  # where the page leads its visitor on: see `page_bodies`


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a walk."""

    condition: Condition
    problem: str = ""  # a sentence that whoever writes the app can act on; empty if it is well
    requests: int = 1

    def as_json(self) -> dict[str, object]:
        return {
            "condition": self.condition.value,
            "problem": self.problem,
            "requests": self.requests,
        }


class Walk:
    """From `/` to the first page that stays. Whoever walks it sends the requests."""

    def __init__(self, host: str, scheme: str = "http") -> None:
        """`host` is the Host header of the requests, `scheme` that of the address for visitors."""
        self.path = "/"  # to be asked for next
        self.requests = 0
        self._host = host.lower()
        self._scheme = scheme
        self._seen: set[str] = set()
        self._led_by = ""  # the page whose refresh leads to `path`
        self._cookies = Cookies(host, scheme)

    @property
    def cookie(self) -> str:
        """To be sent as `Cookie` with the request for `path`; "": none."""
        return self._cookies.header(self.path)

    def take(self, answer: Answer) -> Finding | None:
        """Judge the answer to the request for `path`. None: now ask for the new `path`."""
        self.requests += 1
        for line in answer.cookies:
            self._cookies.take(line, self.path)
        if answer.page:
            return self._of_page(answer)
        if answer.breaks_off:
            return self._unwell(f"answers {answer.status}, and the body ends before its end")
        if answer.unreadable:
            return self._unwell(
                f"says Content-Encoding: {_shown(answer.unreadable)}, and its body is something"
                " else, which no browser shows: leave out the header, or encode the body"
            )
        if 200 <= answer.status < 300:
            if answer.is_empty and answer.status not in _WITHOUT_BODY:
                return self._unwell(f"answers {answer.status} and nothing else: show a page there")
            return self._refresh(answer.refresh)
        if answer.status == 401 and _PASSWORD.search(answer.challenge):
            return self._finding(Condition.WELL)
        if 300 <= answer.status < 400:
            if not answer.location:
                return self._unwell(f"answers {answer.status} without a Location")
            return self._follow(answer.location, "redirects")
        return self._unwell(f"answers {answer.status}{_advice(answer)}")

    def unanswered(self, condition: Condition, problem: str) -> Finding:
        """There is no answer to the request for `path`; `problem` follows `GET /path`."""
        self.requests += 1
        return self._finding(condition, f"GET {_shown(self.path)} {problem}.")

    def _refresh(self, target: str | None) -> Finding | None:
        """A page is shown, and may lead on. It is well if that leads back, or on and on."""
        self._seen.add(self.path)
        if target is None or _SCHEME.match(target) or self.requests > REDIRECTS_MAX:
            return self._finding(Condition.WELL)
        page = self.path
        finding = self._follow(target, "leads by a refresh")
        if finding is None and self.path in self._seen:
            return self._finding(Condition.WELL)
        self._led_by = page
        return finding

    def _follow(self, location: str, verb: str) -> Finding | None:
        """`verb` is what the page does, for a sentence about it."""
        try:
            page = f"{self._scheme}://{self._host}{self.path}"
            target = urlsplit(urljoin(page, location.strip()))
            host = (target.hostname or "").removesuffix(".")
        except ValueError:
            return self._unwell(f"{verb} to what is no address")
        if target.scheme not in {"http", "https"}:
            return self._unwell(f"{verb} to {_shown(location)}, where no browser goes")
        if target.netloc.lower() != self._host:
            if host in _HOSTS_OF_A_VISITOR or host.startswith("127."):
                return self._unwell(
                    f"{verb} to {_shown(location)}, which is the visitor's own machine:"
                    " lead to a path, without a host"
                )
            if not _is_public(host):
                return self._unwell(
                    f"{verb} to {_shown(location)}, which visitors can't reach:"
                    " lead to a path, without a host"
                )
            return self._finding(Condition.WELL)
        if target.scheme == "https" and self._scheme == "http":
            return self._unwell(
                f"{verb} to https, which nobody answers here: lead to a path, and leave TLS"
                " to whatever stands before the app"
            )
        if self.requests > REDIRECTS_MAX:
            return self._unwell(f"comes after more than {REDIRECTS_MAX} redirects")
        query = f"?{target.query}" if target.query else ""
        self.path = _as_sent((target.path or "/") + query)
        return None

    def _of_page(self, answer: Answer) -> Finding:
        condition, problem = _OF_PAGES.get(answer.page, _OF_PAGES[FrontPage.PROXY])
        return self._finding(condition, f"GET {_shown(self.path)} {problem}.")

    def _unwell(self, problem: str) -> Finding:
        page = _shown(self.path)
        led = f", where the refresh of {_shown(self._led_by)} leads," if self._led_by else ""
        return self._finding(Condition.UNWELL, f"GET {page}{led} {problem}.")

    def _finding(self, condition: Condition, problem: str = "") -> Finding:
        return Finding(condition=condition, problem=problem, requests=self.requests)


def first_problem(answer: Answer) -> str:
    """Why an app that answers `/` so is not well, or "". A redirect isn't followed."""
    finding = Walk("localhost").take(answer)
    return "" if finding is None else finding.problem


def restart_problem(answer: Answer) -> str:
    """The same for one that was well, and is started again after a crash.

    What its users have made of it since, such as a page that is forbidden now, is no reason to
    take it away from them.
    """
    return first_problem(answer) if answer.status >= 500 else ""


_HEAD_MAX_KIB = HEAD_MAX_BYTES // 1024
_OF_PAGES: dict[str, tuple[Condition, str]] = {
    FrontPage.PROXY: (Condition.UNREACHED, "gets no valid answer through the proxy"),
    FrontPage.MISDIRECTED: (Condition.UNREACHED, "leads to another sandbox"),
    FrontPage.NOTHING: (Condition.UNREACHED, "leads to a sandbox without an app"),
    FrontPage.STARTING: (Condition.SILENT, "finds an app that takes no request"),
    FrontPage.STOPPED: (Condition.SILENT, "finds an app that has stopped"),
    FrontPage.NO_ANSWER: (
        Condition.UNWELL,
        "fails: the app closed the connection without a whole answer",
    ),
    FrontPage.BAD_ANSWER: (Condition.UNWELL, "fails: the app's answer is no valid HTTP"),
    FrontPage.LONG_HEAD: (
        Condition.UNWELL,
        f"fails: the head of the app's answer has more than {_HEAD_MAX_KIB} KiB",
    ),
}


def _is_public(host: str) -> bool:
    """Whether it may be a host of the Internet: an address of it, or a name with a dot."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host


def _advice(answer: Answer) -> str:
    if answer.status == 401 and answer.challenge:
        return (
            f" with WWW-Authenticate: {_shown(answer.challenge)}, for which no browser asks its"
            " user: redirect to a page with a form"
        )
    if answer.status == 401:
        return " without WWW-Authenticate: send it, or redirect to a page with a form"
    if answer.status < 500:
        return ", which is what everybody sees who opens the app: show a page there"
    return ""


def _as_sent(path: str) -> str:
    """A path as a browser sends it: bytes that don't belong into a request line are encoded.

    It came in a header, which was read as Latin-1.
    """
    try:
        raw = path.encode("latin-1")
    except UnicodeEncodeError:
        raw = path.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E else f"%{byte:02X}" for byte in raw)


def _shown(location: str) -> str:
    """A place in a sentence: what an app sends may be long, and may be anything."""
    return "".join(char if char.isprintable() else "?" for char in location)[:200]
