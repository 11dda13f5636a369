"""Runs the generator process, follows what it says and does what it asks. Called by `job.py`.

The generator is a process of its own because the Anthropic SDK costs more memory and start-up time
than everything else in here, and most sandboxes never call a model. Both sides speak lines of JSON;
`generator/line.py` is the other end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict

from agent.apps.child import Child, describe_exit
from agent.jobs.workshop import Workshop
from agent.layout import APP_PATH, APP_PYTHON, HOME_SOCKET, LAUNCHER
from agent.protocol import Assignment, AssignmentFailed, FailureCode

MARGIN_S = 60.0
"""The generator ends by itself when its seconds are over; this much later it is stopped."""

Message = dict[str, object]


async def generate(
    assignment: Assignment, workshop: Workshop, on_progress: Callable[[int, str], None]
) -> str:
    """Have the model make the app in `workshop`; return its summary. The app then runs.

    Raises AssignmentFailed with what the generator said, or GENERATION_FAILED if it said nothing.
    """
    said: asyncio.Queue[Message | None] = asyncio.Queue()
    try:
        child = Child(
            [APP_PYTHON, "-I", LAUNCHER, "generator"],
            folder=workshop.folder,
            environment={"PATH": APP_PATH, "HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108  # the sandbox's own tmpfs
            on_line=lambda line: said.put_nowait(_decode(line)),
            talks=True,
        )
    except OSError as error:
        message = f"the generator can't be started: {error.strerror}"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message) from error
    child.exited.add_done_callback(lambda _: said.put_nowait(None))
    child.write(order(assignment, workshop.folder))
    limit_s = assignment.limits.seconds + MARGIN_S
    try:
        async with asyncio.timeout(limit_s):
            outcome = await _follow(said, child, workshop, on_progress)
    except TimeoutError as error:
        message = f"the model took longer than {limit_s:g} s"
        raise AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, message) from error
    finally:
        await child.stop()
    return _summary(outcome, child.exited.result() if child.exited.done() else -9)


def order(assignment: Assignment, folder: str) -> bytes:
    """What the generator reads first from its standard input; the only way the token gets there."""
    fields = {
        "socket": HOME_SOCKET,
        "folder": folder,
        "token": assignment.session_token,
        "wish": assignment.wish,
        "conversation": [asdict(said) for said in assignment.conversation],
        "model": assignment.model,
        "max_tokens": assignment.max_tokens,
        "expected_output_tokens": assignment.expected_output_tokens,
        "limits": assignment.limits.as_json(),
    }
    return json.dumps(fields).encode() + b"\n"


async def _follow(
    said: asyncio.Queue[Message | None],
    child: Child,
    workshop: Workshop,
    on_progress: Callable[[int, str], None],
) -> Message | None:
    outcome: Message | None = None
    while (message := await said.get()) is not None:
        event = message.get("event")
        if event == "progress":
            on_progress(int(str(message["progress"])), str(message["message"]))
        elif event == "ask":
            answer = await workshop.answer(message)
            child.write(json.dumps(answer).encode() + b"\n")
        elif event in ("result", "error"):
            outcome = message
    return outcome


def _summary(outcome: Message | None, status: int) -> str:
    if outcome is None:
        message = f"the generator {describe_exit(status)} without a result"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)
    if outcome["event"] == "error":
        raise AssignmentFailed(FailureCode(str(outcome["code"])), str(outcome["message"]))
    return str(outcome["summary"])


def _decode(line: str) -> Message:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
