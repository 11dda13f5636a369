"""Carries out the model's tool calls. Used by `conversation.py`.

Whatever the model sends, it gets an answer that it can act on: nothing in here ends a conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.generator.checker import Checker, Verdict
from agent.generator.line import Line
from agent.generator.progress import Progress
from agent.generator.reply import Call
from agent.generator.workspace import ToolError, Workspace
from agent.limits import Limits

CHECKED_PATHS = 10
CHECKED_BYTES = 4_000
SHOWN_HEADERS = frozenset({"content-type", "location", "content-length", "set-cookie"})
Input = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The answer to one call."""

    text: str
    error: bool = False
    bad_health: str = ""  # why the app isn't in good health, if that is what came out
    summary: str | None = None  # the app is finished


class Toolbox:
    """All tools of `tools.py`, by their names."""

    def __init__(
        self, workspace: Workspace, checker: Checker, line: Line, progress: Progress, limits: Limits
    ) -> None:
        self.workspace = workspace
        self._checker = checker
        self._line = line
        self._progress = progress
        self._limits = limits
        self._healthy_as: object = None  # the files' fingerprint when last found healthy
        self._tools: dict[str, Callable[[Input], Result]] = {
            "list_files": self._list_files,
            "read_file": self._read_file,
            "write_file": self._write_file,
            "edit_file": self._edit_file,
            "delete_file": self._delete_file,
            "run": self._run,
            "start_app": self._start_app,
            "check_app": self._check_app,
            "finish": self._finish,
        }

    @property
    def healthy(self) -> bool:
        """Whether the app as it runs is the files as they are, and was found healthy."""
        return self._healthy_as == self.workspace.fingerprint

    def carry_out(self, call: Call) -> Result:
        tool = self._tools.get(call.name)
        if tool is None:
            names = ", ".join(self._tools)
            return Result(text=f"There is no tool {call.name}. There are: {names}.", error=True)
        if call.input is None:
            text = "The input was no valid JSON object, so nothing was done. Call the tool again."
            return Result(text=text, error=True)
        try:
            return tool(call.input)
        except ToolError as error:
            return Result(text=str(error), error=True)

    def finish(self, summary: str) -> Result:
        """The app is finished if it is in good health."""
        verdict = self._checker.examine() if self.healthy else self._start()
        if verdict.healthy:
            return Result(text="Finished.", summary=summary)
        text = f"Not finished: {verdict}\nMend this, then call finish again."
        return Result(text=text, error=True, bad_health=_health(verdict))

    def _list_files(self, _: Input) -> Result:
        return Result(text=self.workspace.listing())

    def _read_file(self, given: Input) -> Result:
        return Result(text=self.workspace.read(_text(given, "path")) or "(empty)")

    def _write_file(self, given: Input) -> Result:
        path, content = _text(given, "path"), _text(given, "content")
        self._progress.at(f"writing {path[:100]}")
        self.workspace.write(path, content)
        return Result(text=f"Wrote {path}.")

    def _edit_file(self, given: Input) -> Result:
        path = _text(given, "path")
        self._progress.at(f"editing {path[:100]}")
        self.workspace.edit(path, _text(given, "old_text"), _text(given, "new_text"))
        return Result(text=f"Edited {path}.")

    def _delete_file(self, given: Input) -> Result:
        path = _text(given, "path")
        self.workspace.delete(path)
        return Result(text=f"Deleted {path}.")

    def _run(self, given: Input) -> Result:
        command = _text(given, "command")
        limit_s = given.get("limit_s", self._limits.run_seconds)
        if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or limit_s <= 0:
            raise ToolError("limit_s must be a positive number of seconds.")
        self._progress.at(f"running {command[:100]}")
        ran = self._line.ask("run", command=["/bin/sh", "-c", command], limit_s=limit_s)
        text = f"The command {ran['ended']}.\n{ran['output'] or '(no output)'}"
        return Result(text=text, error=ran["status"] != 0)

    def _start_app(self, _: Input) -> Result:
        verdict = self._start()
        return Result(text=str(verdict), error=not verdict.healthy, bad_health=_health(verdict))

    def _check_app(self, given: Input) -> Result:
        paths = given.get("paths")
        if not isinstance(paths, list) or not all(_is_path(path) for path in paths):
            raise ToolError("paths must be a list of paths, each beginning with a slash.")
        self._progress.at(f"checking {', '.join(paths[:3])}"[:150])
        answer = self._checker.get(paths[:CHECKED_PATHS] or ["/"], CHECKED_BYTES)
        if not answer["pages"]:
            raise ToolError("The app doesn't run. Call start_app first.")
        shown = [_shown(page) for page in answer["pages"]]
        ended = f"The app {answer['ended']}.\n" if answer["ended"] else ""
        text = "\n\n".join([*shown, f"{ended}Log:\n{answer['console'] or '(nothing)'}"])
        return Result(text=text, error=bool(ended))

    def _finish(self, given: Input) -> Result:
        return self.finish(_text(given, "summary"))

    def _start(self) -> Verdict:
        files = self.workspace.fingerprint
        verdict = self._checker.start()
        self._healthy_as = files if verdict.healthy else None
        return verdict


def _health(verdict: Verdict) -> str:
    return "" if verdict.unstartable else verdict.reason


def _text(given: Input, name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise ToolError(f"{name} is missing or no text. Call the tool again with it.")
    return value


def _is_path(value: object) -> bool:
    # What is no path can't be sent as one: blanks and control characters would end the line.
    return (
        isinstance(value, str)
        and value.startswith("/")
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _shown(page: dict[str, Any]) -> str:
    if page["problem"]:
        return f"GET {page['path']} fails: {page['problem']}"
    lines = [f"{name}: {value}" for name, value in page["headers"].items() if name in SHOWN_HEADERS]
    return "\n".join([f"GET {page['path']} -> {page['status']}", *lines, "", page["body"]])
