"""Whether the app is in good health: it answers 200 on `/`, and all that the page loads is there.

Used by `toolbox.py`. The agent starts the app and asks it; what the answers mean is decided here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agent.generator.assets import assets_of_page, assets_of_sheet, own_path
from agent.generator.line import Line
from agent.generator.progress import Progress

PAGE_BYTES = 512 * 1024
MAX_REDIRECTS = 4
MAX_ASSETS = 60
LOG_CHARS = 1_500
_ERROR_LINE = re.compile(r"^(?:Uncaught )?[\w.]*(?:Error|Exception)\b.*")

Page = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`reason` is one line for people, `log` the app's last lines; both empty in good health."""

    reason: str = ""
    log: str = ""
    unstartable: bool = False  # the files are no app yet; that says nothing about its health

    @property
    def healthy(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        if self.healthy:
            return "The app runs: / answers 200, and what the page loads is there."
        return f"{self.reason}\nThe last lines of its log:\n{self.log or '(none)'}"


class Checker:
    """Starts and examines the app through the agent."""

    def __init__(self, line: Line, progress: Progress) -> None:
        self._line = line
        self._progress = progress

    def start(self) -> Verdict:
        """Start the app from the files as they are, and examine it."""
        self._progress.at("starting")
        started = self._line.ask("start")
        if "invalid" in started:
            return Verdict(reason=f"This is no app yet: {started['invalid']}.", unstartable=True)
        if started["problem"]:
            return _bad(f"The app {started['problem']}.", started["console"])
        return self.examine()

    def examine(self) -> Verdict:
        """Ask the running app for `/` and for what that page loads."""
        self._progress.at("checking /")
        page, answer = self._page("/")
        problem = _problem(page)
        if not problem and page["status"] != 200:
            problem = f"GET {page['path']} answers {page['status']} instead of 200."
        if not problem and "html" in page["headers"].get("content-type", ""):
            problem, answer = self._examine_assets(page, answer)
        if not problem and answer["ended"]:
            problem = f"The app {answer['ended']}."
        return _bad(problem, answer["console"]) if problem else Verdict()

    def get(self, paths: list[str], max_bytes: int) -> dict[str, Any]:
        return self._line.ask("get", paths=paths, max_bytes=max_bytes)

    def _page(self, path: str) -> tuple[Page, dict[str, Any]]:
        for _ in range(MAX_REDIRECTS):
            answer = self.get([path], PAGE_BYTES)
            if not answer["pages"]:
                return {"path": path, "problem": f"the app {answer['ended']}"}, answer
            page: Page = answer["pages"][0]
            target = page["headers"].get("location", "")
            onward = own_path(target, path) if 300 <= page["status"] < 400 and target else None
            if onward is None:
                return page, answer
            path = onward
        return {"path": path, "problem": f"it redirects more than {MAX_REDIRECTS} times"}, answer

    def _examine_assets(self, page: Page, answer: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        wanted = assets_of_page(page["body"], page["path"])[:MAX_ASSETS]
        if not wanted:
            return "", answer
        answer = self.get(wanted, PAGE_BYTES)
        missing = [_missing(one, page["path"]) for one in answer["pages"]]
        deeper: dict[str, str] = {}
        for sheet in answer["pages"]:
            if "text/css" in sheet["headers"].get("content-type", ""):
                below = assets_of_sheet(sheet["body"], sheet["path"])
                deeper |= {path: sheet["path"] for path in below if path not in wanted}
        if deeper:
            answer = self.get(list(deeper)[:MAX_ASSETS], 1)
            missing += [_missing(one, deeper[one["path"]]) for one in answer["pages"]]
        return " ".join(line for line in missing if line), answer


def _missing(page: Page, needed_by: str) -> str:
    if page["problem"]:
        return f"{page['path']}, which {needed_by} needs, fails: {page['problem']}."
    if page["status"] >= 400:
        return f"{page['path']}, which {needed_by} needs, answers {page['status']}."
    return ""


def _problem(page: Page) -> str:
    return f"GET {page['path']} fails: {page['problem']}." if page["problem"] else ""


def _bad(problem: str, console: str) -> Verdict:
    log = console[-LOG_CHARS:]
    errors = [line.strip() for line in log.splitlines() if _ERROR_LINE.match(line.strip())]
    reason = f"{errors[-1]} ({problem})" if errors else problem
    return Verdict(reason=reason, log=log)
