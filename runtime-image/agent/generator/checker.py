"""Checks that the app is healthy: it is well, and everything that its first page loads exists.

Used by `toolbox.py`. The agent starts the app and sends it requests, this module judges the
answers, by the rule in `contract.health`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agent.generator.assets import assets_of_page, assets_of_script, assets_of_sheet
from agent.generator.channel import Channel
from agent.generator.progress import Progress
from orchestrator.contract.health import ENDLESS_AFTER_S, Answer, Condition, Walk
from orchestrator.contract.page_bodies import refresh_of

HOST = "localhost"
"""In the requests of the agent."""
PAGE_BYTES = 512 * 1024
MAX_ASSETS = 60
"""At once: those of the page, then those of its sheets and modules, and so on."""
MAX_DEPTH = 4
_ERROR_LINE = re.compile(r"^(?:Uncaught )?[\w.]*(?:Error|Exception)\b.*")

Page = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`reason` is one line for people, `log` the app's last lines; both empty if it is healthy."""

    reason: str = ""
    log: str = ""
    note: str = ""  # of a healthy app: what was not looked at to its end
    is_startable: bool = True  # False: the files are no app yet, so its health is unknown

    @property
    def healthy(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        if self.healthy:
            well = "The app runs: / shows a page, and everything that the page loads exists."
            return well + self.note
        return f"{self.reason}\nThe last lines of its log:\n{self.log or '(none)'}"


class Checker:
    """Starts and checks the app through the agent."""

    def __init__(self, channel: Channel, progress: Progress) -> None:
        self._channel = channel
        self._progress = progress

    def start(self) -> Verdict:
        """Start the app from the current files, and check it."""
        self._progress.show("starting")
        answer = self._channel.ask("start")
        if "invalid" in answer:
            return Verdict(reason=f"This is no app yet: {answer['invalid']}.", is_startable=False)
        if answer["problem"]:
            return _unhealthy(f"The app {answer['problem']}.", answer["console"])
        return self.check()

    def check(self) -> Verdict:
        """Request `/` of the running app, and everything that this page loads."""
        self._progress.show("checking /")
        walk = Walk(HOST)
        problem, page, answer = self._walk(walk)
        endless = [page] if not problem and page["is_endless"] else []
        if not problem and page["status"] == 200 and "html" in _header(page, "content-type"):
            problem, answer = self._check_assets(page, answer, walk.cookie, endless)
        if not problem and answer["ended"]:
            problem = f"The app {answer['ended']}."
        if problem:
            return _unhealthy(problem, answer["console"])
        return Verdict(
            note="".join(
                f" {page['path']} was still being sent after {ENDLESS_AFTER_S:g} s."
                for page in endless
            )
        )

    def open(self) -> Verdict:
        """Have the running app opened at its public address, as a visitor does."""
        self._progress.show("opening it at its public address")
        answer = self._channel.ask("open")
        if not answer["problem"]:
            return Verdict()
        problem = f"At its public address, as a browser opens it: {answer['problem']}"
        return _unhealthy(problem, answer["console"])

    def get(
        self, paths: list[str], max_bytes: int, *, navigates: bool = True, cookie: str = ""
    ) -> dict[str, Any]:
        """GET paths of the running app; at most `max_bytes` of each body.

        `navigates`: as a browser that opens a page, and not as one that loads a part of it.
        `cookie` is the header.
        """
        return self._channel.ask(
            "get", paths=paths, max_bytes=max_bytes, navigates=navigates, cookie=cookie
        )

    def _walk(self, walk: Walk) -> tuple[str, Page, dict[str, Any]]:
        """From `/` to the first page that shows: what is wrong, the page, the agent's answer."""
        while True:
            answer = self.get([walk.path], PAGE_BYTES, cookie=walk.cookie)
            if not answer["pages"]:
                problem = f"GET {walk.path} fails: the app {answer['ended']}."
                return problem, {}, answer
            page: Page = answer["pages"][0]
            if page["problem"]:
                return f"GET {walk.path} fails: {page['problem']}.", page, answer
            finding = walk.take(_answer_of(page))
            if finding is not None:
                problem = "" if finding.condition is Condition.WELL else finding.problem
                return problem, page, answer

    def _check_assets(
        self, page: Page, answer: dict[str, Any], cookie: str, endless: list[Page]
    ) -> tuple[str, dict[str, Any]]:
        """What is wrong, and the agent's last answer. Adds to `endless`."""
        assets = assets_of_page(page["body"], page["path"])[:MAX_ASSETS]
        if not assets:
            return "", answer
        users: dict[str, str] = {}  # path of an asset -> who needs it
        for asset in assets:
            users[asset] = page["path"]
        missing: list[str] = []
        asked: set[str] = set()
        for _ in range(MAX_DEPTH):
            answer = self.get(list(users), PAGE_BYTES, navigates=False, cookie=cookie)
            missing += [_missing(asset, users[asset["path"]]) for asset in answer["pages"]]
            endless += [asset for asset in answer["pages"] if asset["is_endless"]]
            asked |= set(users)
            users = _needed_by(answer["pages"], asked)
            if not users or answer["ended"]:
                break
        return " ".join(line for line in missing if line), answer


def _needed_by(assets: list[Page], asked: set[str]) -> dict[str, str]:
    """What these sheets and scripts load and nobody has asked for: path -> who needs it."""
    users: dict[str, str] = {}
    for asset in assets:
        kind = _header(asset, "content-type")
        if asset["status"] >= 400 or not any(name in kind for name in ("text/css", "javascript")):
            continue
        read = assets_of_sheet if "text/css" in kind else assets_of_script
        for path in read(asset["body"], asset["path"]):
            if path not in asked:
                users.setdefault(path, asset["path"])
    return dict(list(users.items())[:MAX_ASSETS])


def _missing(page: Page, needed_by: str) -> str:
    if page["problem"]:
        return f"{page['path']}, which {needed_by} needs, fails: {page['problem']}."
    if page["status"] >= 400:
        return f"{page['path']}, which {needed_by} needs, answers {page['status']}."
    if page["unreadable"]:
        coding = f"Content-Encoding: {page['unreadable'][:50]}"
        return f"{page['path']}, which {needed_by} needs, says {coding}, and its body is none."
    return ""


def _answer_of(page: Page) -> Answer:
    return Answer(
        status=page["status"],
        location=page["headers"].get("location"),
        challenge=_header(page, "www-authenticate"),
        cookies=tuple(page["cookies"]),
        is_empty=page["is_whole"] and not page["body"],
        unreadable=page["unreadable"],
        refresh=refresh_of(_header(page, "refresh"), _header(page, "content-type"), page["body"]),
    )


def _header(page: Page, name: str) -> str:
    value: str = page["headers"].get(name, "")
    return value


def _unhealthy(problem: str, console: str) -> Verdict:
    errors = [line.strip() for line in console.splitlines() if _ERROR_LINE.match(line.strip())]
    reason = f"{errors[-1]} ({problem})" if errors else problem
    return Verdict(reason=reason, log=console)
