"""`spawnctl run`: ask for an app, watch it being made, print its link.

stdout gets the result alone, the link on its last line; progress goes to stderr.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

import typer
from rich.text import Text

from orchestrator.domain import duration
from orchestrator.domain.session import ENDED, SessionState
from orchestrator.entrypoints.cli import labels, local, output
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.progress import Display, for_stderr, say_short

_LONG_POLL_S = 25  # below the 30-60 s after which proxies on the way give up
_PACE_S = 0.2  # between polls, when the API answers them at once (it is about to stop)
# An end has begun, or is complete: there will be no link.
_NO_LINK = ENDED | {SessionState.DESTROYING}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    prompt: Annotated[str, typer.Argument(help="What the app should be.")] = "",
    template: Annotated[
        str | None, typer.Option("--template", "-t", help="Start this template as it is.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(help="Time to live, e.g. 30m, 2h, 1d.")] = None,
    region: Annotated[str, typer.Option(help="Of the host that it is to run on.")] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="That its host has to have; repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the link.")] = True,
    timeout: Annotated[str, typer.Option(help="Wait at most so long.")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Make an app from a prompt, and print its link.

    The link is the last line of stdout: open "$(spawnctl run "a kanban board" | tail -1)"
    """
    timeout_s = duration.parse(timeout)
    asked: dict[str, Any] = {"prompt": prompt, "template": template, "ttl": ttl}
    if region:
        asked["region"] = region
    if label:
        asked["labels"] = labels.parse(label)
    with Api.of(local.settings()) as api:
        made = api.create(asked, idempotency_key=uuid.uuid4().hex)
        assert made.status is not None
        session_id = str(made.status["session_id"])
        if not wait:
            _print_id(made.status, as_json=as_json)
            return
        try:
            with for_stderr() as display:
                final = _follow(api, made.status, made.etag, display, timeout_s)
        except KeyboardInterrupt:
            raise _goes_on(session_id, Exit.INTERRUPTED, "interrupted", "stopped waiting") from None
    _print_result(final, as_json=as_json)


def _follow(api: Api, first: Json, etag: str | None, display: Display, timeout_s: float) -> Json:
    """Show each change until the session is ready or has ended. Raises Problem."""
    status, ends = first, time.monotonic() + timeout_s
    while True:
        display.show(status)
        if status["ready"] or status["status"] in _NO_LINK:
            return status
        left_s = ends - time.monotonic()
        if left_s <= 0:
            said = f"{status['session_id']} is {status['status']} after {duration.say(timeout_s)}"
            raise _goes_on(status["session_id"], Exit.FAILED, "wait_timeout", said)
        asked_at = time.monotonic()
        polled = api.poll(status["session_id"], etag, max(1, min(_LONG_POLL_S, int(left_s))))
        if polled.status is not None:
            status, etag = polled.status, polled.etag
        else:
            time.sleep(max(0.0, _PACE_S - (time.monotonic() - asked_at)))


def _goes_on(session_id: str, exit_code: Exit, code: str, message: str) -> Problem:
    """We stop waiting; the session doesn't stop."""
    return Problem(
        exit_code,
        code,
        f"{message}; the session goes on",
        f"See it: spawnctl sessions show {output.short(session_id)}",
        f"End it: spawnctl sessions kill {output.short(session_id)}",
    )


def _print_id(status: Json, *, as_json: bool) -> None:
    if as_json:
        output.as_json(status)
        return
    short = output.short(status["session_id"])
    output.stderr().print(f"It is {status['status']}. See it: spawnctl sessions show {short}")
    print(status["session_id"])


def _print_result(status: Json, *, as_json: bool) -> None:
    """The end of the story. Raises Problem for one without a link."""
    if as_json:
        output.as_json(status)
    if not status["ready"]:
        raise _failed(status)
    if as_json:
        return
    spent_s = sum(phase["seconds"] for phase in status["phases"] if phase["name"] != "ready")
    output.stderr().print(
        Text.assemble(
            ("Ready", "green"),
            f" after {say_short(spent_s)}; {output.short(status['session_id'])} ends in"
            f" {output.until(status['expires_at'])}",
        )
    )
    print(status["url"])


def _failed(status: Json) -> Problem:
    short = output.short(status["session_id"])
    error = status.get("error")
    if error is None:
        message = f"{short} was ended before it was ready, by somebody or by its time to live"
        return Problem(Exit.FAILED, "session_ended", message)
    return Problem(
        Exit.FAILED,
        str(error["code"]),
        str(error["message"]),
        f"What the app printed: spawnctl sessions logs {short}",
        f"The whole story: spawnctl sessions show {short}",
    )
