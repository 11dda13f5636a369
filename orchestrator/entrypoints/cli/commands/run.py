"""`spawnctl run`: ask for an app, watch it being made, print its link.

stdout gets the result alone, the link on its last line; progress goes to stderr.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer
from rich.text import Text

from orchestrator.domain import duration
from orchestrator.domain.sessions.session import ENDED, SessionState
from orchestrator.entrypoints.cli import labels, local, output, problems
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.commands.sessions import following
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views.progress import Display, for_stderr, say_short

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
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make it anew, even if an equal prompt was met before.")
    ] = False,
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
    if fresh:
        asked["fresh"] = True
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
            advice = _see_or_end(output.short(session_id))
            raise following.interrupted("the session", *advice) from None
    _print_result(final, as_json=as_json)


def _follow(api: Api, first: Json, etag: str | None, display: Display, timeout_s: float) -> Json:
    """Show each change until the session has its link or has ended. Raises Problem."""
    status = first
    for status in following.statuses(api, first, etag, timeout_s):
        display.show(status)
        # An app that somebody changes already isn't ready, and yet is there.
        if status["url"] is not None or status["status"] in _NO_LINK:
            return status
    short = output.short(status["session_id"])
    said = f"{short} is {output.plain(status['status'])} after {duration.say(timeout_s)}"
    raise following.late(f"{said}; the session goes on", *_see_or_end(short))


def _see_or_end(short: str) -> tuple[str, ...]:
    return (f"See it: spawnctl sessions show {short}", f"End it: spawnctl sessions kill {short}")


def _print_id(status: Json, *, as_json: bool) -> None:
    if as_json:
        output.as_json(status)
        return
    short = output.short(status["session_id"])
    output.stderr().print(f"It is {status['status']}. See it: spawnctl sessions show {short}")
    _say_reused(status)
    print(status["session_id"])


def _print_result(status: Json, *, as_json: bool) -> None:
    """The end of the story. Raises Problem for one without a link."""
    if as_json:
        output.as_json(status)
    if status["url"] is None:
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
    _say_reused(status)
    print(status["url"])


def _say_reused(status: Json) -> None:
    if status["reused"]:
        output.stderr().print("Made from an earlier, equal prompt; --fresh makes it anew.")


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
        *_instead(status["offer"]),
        *problems.advice_for(str(error["code"])),
        f"What the app printed: spawnctl sessions logs {short}",
        f"The whole story: spawnctl sessions show {short}",
    )


def _instead(offer: Json | None) -> tuple[str, ...]:
    """What can be had without Claude. Offered; whoever asked for something else may not want it."""
    if offer is None:
        return ()
    name, title = output.plain(offer["template"]), output.plain(offer["title"])
    return (f"Start the nearest template instead ({title}): spawnctl run --template {name}",)
