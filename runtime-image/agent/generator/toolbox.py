"""Carries out the model's tool calls. Used by `conversation.py`.

Whatever the model sends, it gets an answer that it can act on. No call ends the conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.generator.channel import Channel, Refused
from agent.generator.checker import Checker, Verdict
from agent.generator.progress import Progress
from agent.generator.reply import Call
from agent.generator.workspace import ToolError, Workspace
from orchestrator.contract.wire import Limits

CHECKED_PATHS = 10
CHECKED_BYTES = 4_000
SHOWN_HEADERS = frozenset({"content-type", "location", "content-length", "set-cookie"})
Input = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The answer to one call."""

    text: str
    error: bool = False
    health_problem: str = ""  # why the app isn't healthy, if a check said so
    summary: str | None = None  # set: the app is finished


class Toolbox:
    """All tools of `tools.py`, by their names."""

    def __init__(
        self,
        workspace: Workspace,
        checker: Checker,
        channel: Channel,
        progress: Progress,
        limits: Limits,
    ) -> None:
        self.workspace = workspace
        self._checker = checker
        self._channel = channel
        self._progress = progress
        self._limits = limits
        self._healthy_fingerprint: object = None  # of the files that passed the last check
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
        """Whether the app passed its check, and no file has changed since it was started."""
        return self._healthy_fingerprint == self.workspace.fingerprint

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
        except (ToolError, Refused) as error:
            return Result(text=str(error), error=True)

    def finish(self, summary: str) -> Result:
        """Check the app. It is finished if it is healthy."""
        verdict = self._checker.check() if self.healthy else self._start()
        if verdict.healthy:
            verdict = self._checker.open()
        if verdict.healthy:
            return Result(text="Finished.", summary=summary)
        text = f"Not finished: {verdict}\nFix this, then call finish again."
        return Result(text=text, error=True, health_problem=_health_problem(verdict))

    def _list_files(self, _: Input) -> Result:
        return Result(text=self.workspace.listing())

    def _read_file(self, arguments: Input) -> Result:
        return Result(text=self.workspace.read(_text(arguments, "path")) or "(empty)")

    def _write_file(self, arguments: Input) -> Result:
        path, content = _text(arguments, "path"), _text(arguments, "content")
        self._progress.show(f"writing {path[:100]}")
        self.workspace.write(path, content)
        return Result(text=f"Wrote {path}.")

    def _edit_file(self, arguments: Input) -> Result:
        path = _text(arguments, "path")
        self._progress.show(f"editing {path[:100]}")
        self.workspace.edit(path, _text(arguments, "old_text"), _text(arguments, "new_text"))
        return Result(text=f"Edited {path}.")

    def _delete_file(self, arguments: Input) -> Result:
        path = _text(arguments, "path")
        self.workspace.delete(path)
        return Result(text=f"Deleted {path}.")

    def _run(self, arguments: Input) -> Result:
        command = _text(arguments, "command")
        limit_s = arguments.get("limit_s", self._limits.run_seconds)
        if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or limit_s <= 0:
            raise ToolError("limit_s must be a positive number of seconds.")
        self._progress.show(f"running {command[:100]}")
        answer = self._channel.ask("run", command=["/bin/sh", "-c", command], limit_s=limit_s)
        text = f"The command {answer['ended']}.\n{answer['output'] or '(no output)'}"
        return Result(text=text, error=answer["status"] != 0)

    def _start_app(self, _: Input) -> Result:
        verdict = self._start()
        return Result(
            text=str(verdict), error=not verdict.healthy, health_problem=_health_problem(verdict)
        )

    def _check_app(self, arguments: Input) -> Result:
        paths = arguments.get("paths")
        if not isinstance(paths, list) or not all(_is_path(path) for path in paths):
            raise ToolError("paths must be a list of paths, each beginning with a slash.")
        self._progress.show(f"checking {', '.join(paths[:3])}"[:150])
        answer = self._checker.get(paths[:CHECKED_PATHS] or ["/"], CHECKED_BYTES)
        if not answer["pages"]:
            raise ToolError("The app doesn't run. Call start_app first.")
        shown = [_shown(page) for page in answer["pages"]]
        ended = f"The app {answer['ended']}.\n" if answer["ended"] else ""
        text = "\n\n".join([*shown, f"{ended}Log:\n{answer['console'] or '(nothing)'}"])
        return Result(text=text, error=bool(ended))

    def _finish(self, arguments: Input) -> Result:
        return self.finish(_text(arguments, "summary"))

    def _start(self) -> Verdict:
        fingerprint = self.workspace.fingerprint
        verdict = self._checker.start()
        self._healthy_fingerprint = fingerprint if verdict.healthy else None
        return verdict


def _health_problem(verdict: Verdict) -> str:
    return verdict.reason if verdict.is_startable else ""


def _text(arguments: Input, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise ToolError(f"{name} is missing or not a text. Call the tool again with it.")
    return value


def _is_path(value: object) -> bool:
    # Anything else can't be sent: blanks and control characters would end the request line.
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
