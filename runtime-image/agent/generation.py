"""Runs the generator process and follows what it says. Called by `job.py`.

The generator is a process of its own because the Anthropic SDK costs more memory and start-up time
than everything else in here, and most sandboxes never call a model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from agent.child import Child, describe_exit
from agent.layout import APP_PATH, APP_PYTHON, HOME_SOCKET, LAUNCHER
from agent.protocol import Assignment, AssignmentFailed, FailureCode

GENERATION_LIMIT_S = 1200.0
"""Longer than any model takes for the largest `max_tokens` that home hands out."""


async def generate(
    assignment: Assignment, folder: str, on_progress: Callable[[int, str], None]
) -> None:
    """Have the model write the app into `folder`, on top of what is there.

    Raises AssignmentFailed with what the generator said, or GENERATION_FAILED if it said nothing.
    """
    outcome: list[dict[str, object]] = []

    def on_line(line: str) -> None:
        message = _decode(line)
        if message.get("event") == "progress":
            on_progress(int(str(message["progress"])), str(message["message"]))
        elif message.get("event") in ("result", "error"):
            outcome.append(message)

    child = Child(
        [APP_PYTHON, "-I", LAUNCHER, "generator"],
        folder=folder,
        environment={"PATH": APP_PATH, "HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108  # the sandbox's own tmpfs
        on_line=on_line,
        stdin=generator_input(assignment, folder),
        merge_stderr=False,
    )
    try:
        async with asyncio.timeout(GENERATION_LIMIT_S):
            status = await asyncio.shield(child.exited)
    except TimeoutError as error:
        message = f"the model took longer than {GENERATION_LIMIT_S:g} s"
        raise AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, message) from error
    finally:
        await child.stop()
    _check(outcome, status)


def generator_input(assignment: Assignment, folder: str) -> bytes:
    """What the generator reads from its standard input; the only way the token gets there."""
    fields = {
        "socket": HOME_SOCKET,
        "folder": folder,
        "token": assignment.session_token,
        "prompt": assignment.prompt,
        "model": assignment.model,
        "max_tokens": assignment.max_tokens,
    }
    return json.dumps(fields).encode() + b"\n"


def _check(outcome: list[dict[str, object]], status: int) -> None:
    if not outcome:
        message = f"the generator {describe_exit(status)} without a result"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)
    last = outcome[-1]
    if last["event"] == "error":
        raise AssignmentFailed(FailureCode(str(last["code"])), str(last["message"]))


def _decode(line: str) -> dict[str, object]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
