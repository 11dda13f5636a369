"""Runs the generator process, follows its messages and answers its questions. Called by `job.py`.

The generator is a process of its own: it waits for the model and holds what the model writes, and
neither may hold up the agent. Both sides send lines of JSON; `generator/channel.py` is the other
end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from agent.apps.child import Child, describe_exit
from agent.console import log
from agent.failures import AssignmentFailed
from agent.jobs.messages import (
    MESSAGE_MAX_CHARS,
    Failed,
    Finished,
    Progressed,
    QuestionInvalid,
    parse_message,
)
from agent.jobs.workshop import Workshop
from agent.layout import APP_PATH, HOME_SOCKET, LAUNCHER
from orchestrator.contract.wire import Assignment, FailureCode, ProtocolError

MARGIN_S = 60.0
"""The generator ends by itself at its time limit. We stop it this much later."""
LINES_MAX = 1_000
"""That wait to be read. The generator itself sends a few, then waits for an answer."""


async def generate(
    assignment: Assignment, workshop: Workshop, on_progress: Callable[[int, str], None]
) -> str:
    """Have the model make the app in `workshop`; return its summary. The app then runs.

    Raises AssignmentFailed: with the generator's error, or GENERATION_FAILED if it sent none.
    """
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def add_line(line: str) -> None:
        if lines.qsize() < LINES_MAX:
            lines.put_nowait(line)

    try:
        child = Child(
            [sys.executable, "-I", "-S", LAUNCHER, "generator"],
            folder=workshop.folder,
            environment={"PATH": APP_PATH, "HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108  # the sandbox's own tmpfs
            on_line=add_line,
            line_max_chars=MESSAGE_MAX_CHARS,
            is_trusted=True,
        )
    except OSError as error:
        message = f"the generator can't be started: {error.strerror}"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message) from error
    child.exited.add_done_callback(lambda _: lines.put_nowait(None))
    child.write(order(assignment, workshop.folder))
    limit_s = assignment.limits.seconds + MARGIN_S
    try:
        async with asyncio.timeout(limit_s):
            outcome = await _follow(lines, child, workshop, on_progress)
    except TimeoutError as error:
        message = f"the model took longer than {limit_s:g} s"
        raise AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, message) from error
    finally:
        await child.stop()
    return _summary(outcome, child.exited.result() if child.exited.done() else -9)


def order(assignment: Assignment, folder: str) -> bytes:
    """The first line of the generator's standard input; the only way the token gets there."""
    fields = {
        "socket": HOME_SOCKET,
        "folder": folder,
        "token": assignment.session_token,
        "request": assignment.message or assignment.prompt or "",
        "conversation": [message.as_json() for message in assignment.conversation],
        "model": assignment.model,
        "max_tokens": assignment.max_tokens,
        "expected_output_tokens": assignment.expected_output_tokens,
        "limits": assignment.limits.as_json(),
        "upload_max_bytes": assignment.upload_max_bytes,
    }
    return json.dumps(fields).encode() + b"\n"


async def _follow(
    lines: asyncio.Queue[str | None],
    child: Child,
    workshop: Workshop,
    on_progress: Callable[[int, str], None],
) -> Finished | Failed | None:
    outcome: Finished | Failed | None = None
    while (line := await lines.get()) is not None:
        try:
            message = parse_message(line)
        except QuestionInvalid as error:
            _answer(child, {"refused": str(error)})
        except ProtocolError as error:
            log("message_rejected", error=str(error))
        else:
            if isinstance(message, Progressed):
                on_progress(message.percent, message.message)
            elif isinstance(message, Finished | Failed):
                outcome = message
            else:
                _answer(child, await workshop.answer(message))
    return outcome


def _answer(child: Child, answer: dict[str, Any]) -> None:
    child.write(json.dumps(answer).encode() + b"\n")


def _summary(outcome: Finished | Failed | None, status: int) -> str:
    if outcome is None:
        message = f"the generator {describe_exit(status)} without a result"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)
    if isinstance(outcome, Failed):
        raise AssignmentFailed(outcome.code, outcome.message)
    return outcome.summary
