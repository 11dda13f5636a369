"""What the generator tells and asks the agent, parsed once: here. Pure; used by `generation.py`.

The generator is ours, but a command of the model runs as the same user and may write into its pipe.
And a question repeats what the model wrote. So a message is foreign input like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.contract.cookies import HEADER_MAX_CHARS
from orchestrator.contract.wire import FailureCode, ProtocolError, decode
from orchestrator.contract.wire.fields import Fields

MESSAGE_MAX_CHARS = 1024 * 1024
PATHS_MAX = 60
PATH_MAX_CHARS = 2_000
WORDS_MAX = 64
COMMAND_MAX_CHARS = 100_000
"""Of one word. Linux takes 128 KiB."""
BODY_MAX_BYTES = 512 * 1024


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """How far the model is."""

    percent: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The app is made."""

    summary: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The app can't be made."""

    code: FailureCode
    message: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """Asks to start the app from the files of the work folder."""


@dataclass(frozen=True, kw_only=True)
class Get:
    """Asks for paths of the app that runs."""

    paths: tuple[str, ...]
    max_bytes: int  # of each body
    navigates: bool  # as a browser that opens the paths; else one that loads parts of a page
    cookie: str = ""  # the header


@dataclass(frozen=True, kw_only=True)
class Run:
    """Asks to run a command."""

    command: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True, kw_only=True)
class Open:
    """Asks to open the app that runs at its public address."""


Question = Start | Get | Run | Open
Message = Progressed | Finished | Failed | Question


class QuestionInvalid(ProtocolError):
    """A question that can't be asked. The generator waits for an answer to it all the same."""


def parse_message(line: str) -> Message:
    """Read one line. Raises ProtocolError, or QuestionInvalid."""
    given = Fields(decode(line.encode("utf-8", "replace"), "message"), "message")
    event = given.text("event", longest=20)
    if event == "progress":
        return Progressed(
            percent=given.whole("progress", most=100), message=given.text("message", empty=True)
        )
    if event == "result":
        return Finished(summary=given.text("summary", empty=True))
    if event == "error":
        code = given.choice("code", FailureCode)
        return Failed(code=code, message=given.text("message", empty=True))
    if event == "ask":
        try:
            return _question(given)
        except ProtocolError as error:
            raise QuestionInvalid(error.field, error.problem) from error
    raise given.wrong("event", "is unknown")


def _question(given: Fields) -> Question:
    name = given.text("ask", longest=20)
    if name == "start":
        return Start()
    if name == "open":
        return Open()
    if name == "get":
        return Get(
            paths=given.texts("paths", most=PATHS_MAX, longest=PATH_MAX_CHARS),
            max_bytes=given.whole("max_bytes", most=BODY_MAX_BYTES),
            navigates=given.flag("navigates"),
            cookie=given.text("cookie", longest=HEADER_MAX_CHARS, empty=True),
        )
    if name == "run":
        command = given.texts("command", most=WORDS_MAX, longest=COMMAND_MAX_CHARS)
        if any("\0" in word for word in command):
            raise given.wrong("command", "holds a NUL character: leave it out")
        return Run(command=command, limit_s=given.number("limit_s"))
    raise given.wrong("ask", "is unknown")
