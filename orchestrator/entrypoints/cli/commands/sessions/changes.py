"""`spawnctl sessions message`, `messages`, `versions` and `restore`: changes of running apps.

stdout gets the result alone, the link on its last line; progress goes to stderr.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from orchestrator.domain import duration
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.commands.sessions import change_waits, ids
from orchestrator.entrypoints.cli.commands.sessions.ids import SessionArgument
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views import changes

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]
Timeout = Annotated[str, typer.Option(help="Wait at most so long.")]


def register(group: typer.Typer) -> None:
    """Add the commands to those about sessions."""
    group.command()(message)
    group.command("messages")(list_messages)
    group.command("versions")(list_versions)
    group.command()(restore)


def message(
    session: SessionArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What should be different.")],
    wait: Wait = True,
    timeout: Timeout = "1h",
    as_json: AsJson = False,
) -> None:
    """Ask for a change of a running app, and watch it being made. Its link stays as it is.

    The version before goes on serving until the next one does, and if the change fails.
    """
    timeout_s = duration.parse(timeout) if wait else None
    with Api.of(local.settings()) as api:
        path = f"/api/sessions/{ids.find(api, session)}/messages"
        _ask(api, path, {"text": text}, timeout_s, as_json=as_json)


def list_messages(session: SessionArgument, as_json: AsJson = False) -> None:
    """Show what was asked of an app, and what became of it."""
    with Api.of(local.settings()) as api:
        session_id = ids.find(api, session)
        messages = api.get(f"/api/sessions/{session_id}/messages")
        if as_json:
            output.as_json(messages)
            return
        status = api.get(f"/api/status/{session_id}")
        versions = api.get(f"/api/sessions/{session_id}/versions")["versions"]
    found = messages["messages"]
    output.stdout().print(changes.conversation(status, versions, found))
    if not found and status["url"] is not None:
        short = output.short(session_id)
        output.stderr().print(f'Ask for more: spawnctl sessions message {short} "make it blue"')


def list_versions(session: SessionArgument, as_json: AsJson = False) -> None:
    """List the versions of an app, oldest first."""
    with Api.of(local.settings()) as api:
        session_id = ids.find(api, session)
        found = api.get(f"/api/sessions/{session_id}/versions")
    if as_json:
        output.as_json(found)
        return
    versions, short = found["versions"], output.short(session_id)
    console = output.stdout()
    if not versions:
        output.stderr().print(f"No version yet. See why: spawnctl sessions show {short}")
        return
    console.print(changes.listing(versions, wide=console.width >= output.WIDE))
    if any(not one["healthy"] for one in versions):
        output.stderr().print("broken: it never ran well. It can be downloaded, not restored.")
    if others := [one["version"] for one in versions if one["healthy"] and not one["running"]]:
        said = f"Have one run again: spawnctl sessions restore {short} {others[-1]}"
        output.stderr().print(said)


def restore(
    session: SessionArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Its number.")],
    wait: Wait = True,
    timeout: Timeout = "1h",
    as_json: AsJson = False,
) -> None:
    """Have an earlier version of an app run again. Its link stays as it is."""
    timeout_s = duration.parse(timeout) if wait else None
    with Api.of(local.settings()) as api:
        path = f"/api/sessions/{ids.find(api, session)}/versions/{version}/restore"
        _ask(api, path, {}, timeout_s, as_json=as_json)


def _ask(
    api: Api, path: str, body: Mapping[str, Any], timeout_s: float | None, *, as_json: bool
) -> None:
    """Ask, and follow it to its end; without `timeout_s` don't. Raises Problem."""
    asked = api.ask(path, body, idempotency_key=uuid.uuid4().hex)
    if timeout_s is None:
        _print_number(asked, as_json=as_json)
        return
    over = change_waits.until_over(api, asked, timeout_s)
    if not as_json:
        change_waits.report(over)
        return
    output.as_json(over)
    if over["message"]["state"] != "done":
        raise change_waits.failed(over["message"], over["session"])


def _print_number(asked: Json, *, as_json: bool) -> None:
    if as_json:
        output.as_json(asked)
        return
    short = output.short(asked["session"]["session_id"])
    said = f"It is {asked['message']['state']}. See it: spawnctl sessions messages {short}"
    output.stderr().print(said)
    print(asked["message"]["number"])
