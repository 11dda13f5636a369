"""`spawnctl run` and `templates`: make an app and print its link; list what starts at once.

stdout gets the result alone, with the link in its last line. Progress goes to stderr.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer
from rich.text import Text

from orchestrator.domain import duration
from orchestrator.domain.sessions.session import ENDED, SessionState
from orchestrator.entrypoints.cli import local, output, problems
from orchestrator.entrypoints.cli.arguments import parse_labels
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.commands.sessions import waits
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views.progress import Display, open_display, seconds_text

# The session has ended or is ending: it will never have a link.
_NO_LINK = ENDED | {SessionState.DESTROYING}


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command()(run)
    app.command()(templates)


def run(
    prompt: Annotated[str, typer.Argument(help="What the app should be.")] = "",
    template: Annotated[
        str | None, typer.Option("--template", "-t", help="Start this template as it is.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make a new app, even if an equal prompt has one.")
    ] = False,
    ttl: Annotated[str | None, typer.Option(help="Time to live, e.g. 30m, 2h, 1d.")] = None,
    region: Annotated[str, typer.Option(help="Region that the host must be in.")] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Label that the host must have; repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the link.")] = True,
    timeout: Annotated[str, typer.Option(help="How long to wait at most, e.g. 10m.")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Make an app from a prompt, and print its link.

    The link is the last line of stdout: open "$(spawnctl run "a kanban board" | tail -1)"
    """
    timeout_s = duration.parse(timeout)
    request: dict[str, Any] = {"prompt": prompt, "template": template, "ttl": ttl}
    if fresh:
        request["fresh"] = True
    if region:
        request["region"] = region
    if label:
        request["labels"] = parse_labels(label)
    with Api.from_settings(local.settings()) as api:
        created = api.create_session(request, idempotency_key=uuid.uuid4().hex)
        assert created.status is not None
        if not wait:
            _print_id(created.status, as_json=as_json)
            return
        try:
            with open_display() as display:
                final = _follow(api, created.status, created.etag, display, timeout_s)
        except KeyboardInterrupt:
            advice = _see_or_end(output.short_id(created.status["session_id"]))
            raise waits.interrupted("the session", *advice) from None
    _print_result(final, as_json=as_json)


def templates(as_json: AsJson = False) -> None:
    """List the apps that start at once, without Claude."""
    with Api.from_settings(local.settings()) as api:
        response = api.get("/api/templates")
    if as_json:
        output.print_json(response)
        return
    table = output.table("NAME", "KIND", "WHAT IT IS", wrap={"WHAT IT IS"})
    for template in response["templates"]:
        title, description = output.plain(template["title"]), output.plain(template["description"])
        table.add_row(
            output.plain(template["name"]),
            output.plain(template["kind"]),
            f"{title}: {description}",
        )
    output.stdout().print(table)
    output.stderr().print("Start one: spawnctl run --template NAME")


def _follow(api: Api, first: Json, etag: str | None, display: Display, timeout_s: float) -> Json:
    """Show each new status until the session has its link or has ended. Raises Problem."""
    status = first
    for status in waits.statuses(api, first, etag, timeout_s):
        display.show(status)
        # An app that somebody changes already has its link, although it is not ready.
        if status["url"] is not None or status["status"] in _NO_LINK:
            return status
    short_id = output.short_id(status["session_id"])
    state = f"{output.plain(status['status'])} after {duration.to_text(timeout_s)}"
    raise waits.timed_out(f"{short_id} is {state}; the session goes on", *_see_or_end(short_id))


def _see_or_end(short_id: str) -> tuple[str, ...]:
    return (
        f"See it: spawnctl sessions show {short_id}",
        f"End it: spawnctl sessions kill {short_id}",
    )


def _print_id(status: Json, *, as_json: bool) -> None:
    if as_json:
        output.print_json(status)
        return
    short_id = output.short_id(status["session_id"])
    output.stderr().print(f"It is {status['status']}. See it: spawnctl sessions show {short_id}")
    _print_reuse(status)
    print(status["session_id"])


def _print_result(status: Json, *, as_json: bool) -> None:
    """Print the link, or the final status as JSON. Raises Problem if there is no link."""
    if as_json:
        output.print_json(status)
    if status["url"] is None:
        raise _no_link(status)
    if as_json:
        return
    took_s = sum(phase["seconds"] for phase in status["phases"] if phase["name"] != "ready")
    output.stderr().print(
        Text.assemble(
            ("Ready", "green"),
            f" after {seconds_text(took_s)}; {output.short_id(status['session_id'])} ends in"
            f" {output.time_left(status['expires_at'])}",
        )
    )
    _print_reuse(status)
    print(status["url"])


def _print_reuse(status: Json) -> None:
    if status["reused"]:
        output.stderr().print("Made from an earlier, equal prompt; --fresh makes it anew.")


def _no_link(status: Json) -> Problem:
    """Why the session has ended without a link."""
    short_id = output.short_id(status["session_id"])
    error = status.get("error")
    if error is None:
        message = f"{short_id} was ended before it was ready, by somebody or by its time to live"
        return Problem(Exit.FAILED, "session_ended", message)
    return Problem(
        Exit.FAILED,
        str(error["code"]),
        str(error["message"]),
        *_offer_template(status["offer"]),
        *problems.advice_for(str(error["code"])),
        f"What the app printed: spawnctl sessions logs {short_id}",
        f"The whole story: spawnctl sessions show {short_id}",
    )


def _offer_template(offer: Json | None) -> tuple[str, ...]:
    """Advice to start a template instead. Never start it unasked: the user may not want it."""
    if offer is None:
        return ()
    name, title = output.plain(offer["template"]), output.plain(offer["title"])
    return (f"Start the nearest template instead ({title}): spawnctl run --template {name}",)
