"""The agent's end of the generator's channel, for tests without processes.

The app is always static: it answers with the files in the folder. `problems` holds the results of
the next starts, one each; `""` is a success.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from agent.generator.channel import Channel

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class FakeAgent(Channel):
    """Answers at once. Keeps events and questions, oldest first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(io.StringIO(), io.StringIO())
        self.folder = folder
        self.problems: list[str] = []
        self.console = ""
        self.ended = ""
        self.pages: dict[str, dict[str, Any]] = {}  # fields instead of those of the path's file
        self.public_problems: list[str] = []  # of the next visits at the public address
        self.command_result: dict[str, Any] = {
            "ended": "exited with status 0",
            "status": 0,
            "output": "",
        }
        self.sent: list[dict[str, Any]] = []
        self.questions: list[dict[str, Any]] = []
        self._is_running = False

    def send(self, event: str, **fields: object) -> None:
        self.sent.append({"event": event, **fields})

    def ask(self, question: str, **fields: Any) -> dict[str, Any]:
        self.questions.append({"ask": question, **fields})
        if question == "run":
            return self.command_result
        if question == "start":
            return self._start()
        if question == "open":
            problem = self.public_problems.pop(0) if self.public_problems else ""
            return {"problem": problem, "console": self.console}
        if not self._is_running:
            return {"ended": "was not started", "console": "", "pages": []}
        pages = [self._page(path) for path in fields["paths"]]
        return {"ended": self.ended, "console": self.console, "pages": pages}

    def _start(self) -> dict[str, Any]:
        if not (self.folder / "spawn.json").exists():
            return {"invalid": "there is no spawn.json in the app's folder"}
        problem = self.problems.pop(0) if self.problems else ""
        self._is_running = not problem
        return {"problem": problem, "console": self.console}

    def _page(self, path: str) -> dict[str, Any]:
        file = self.folder / (path.partition("?")[0].lstrip("/") or "index.html")
        page: dict[str, Any] = {"path": path, "status": 404, "headers": {}, "body": ""}
        if file.is_file():
            kind = TYPES.get(file.suffix, "application/octet-stream")
            page |= {"status": 200, "headers": {"content-type": kind}, "body": file.read_text()}
        usual = {"problem": "", "is_whole": True, "is_endless": False, "unreadable": ""}
        return {**page, **usual, "cookies": [], **self.pages.get(path, {})}
