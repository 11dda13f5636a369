"""`spawnctl sessions message`, `messages`, `versions` and `restore`: changes of running apps.

stdout gets the result alone, with the link in its last line. Progress goes to stderr.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from orchestrator.domain import duration
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.arguments import SessionArgument, find_session
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.commands.sessions import waits
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.views import changes

WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]
TimeoutOption = Annotated[str, typer.Option(help="How long to wait at most, e.g. 10m.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group `sessions`."""
    group.command()(message)
    group.command("messages")(list_messages)
    group.command("versions")(list_versions)
    group.command()(restore)


def message(
    session: SessionArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What should be different.")],
    wait: WaitOption = True,
    timeout: TimeoutOption = "1h",
    as_json: AsJson = False,
) -> None:
    """Ask for a change of a running app, and watch it being made. Its link stays the same.

    The current version serves until the next one does. If the change fails, it goes on serving.
    """
    timeout_s = duration.parse(timeout) if wait else None
    with Api.from_settings(local.settings()) as api:
        path = f"/api/sessions/{find_session(api, session)}/messages"
        _request_change(api, path, {"text": text}, timeout_s, as_json=as_json)


def list_messages(session: SessionArgument, as_json: AsJson = False) -> None:
    """Show what users asked of an app, and what came of it."""
    with Api.from_settings(local.settings()) as api:
        session_id = find_session(api, session)
        response = api.get(f"/api/sessions/{session_id}/messages")
        if as_json:
            output.print_json(response)
            return
        status = api.get(f"/api/status/{session_id}")
        versions = api.get(f"/api/sessions/{session_id}/versions")["versions"]
    messages = response["messages"]
    output.stdout().print(changes.conversation(status, versions, messages))
    if not messages and status["url"] is not None:
        short_id = output.short_id(session_id)
        output.stderr().print(f'Ask for more: spawnctl sessions message {short_id} "make it blue"')


def list_versions(session: SessionArgument, as_json: AsJson = False) -> None:
    """List the versions of an app, oldest first."""
    with Api.from_settings(local.settings()) as api:
        session_id = find_session(api, session)
        response = api.get(f"/api/sessions/{session_id}/versions")
    if as_json:
        output.print_json(response)
        return
    versions, short_id = response["versions"], output.short_id(session_id)
    console, notes = output.stdout(), output.stderr()
    if not versions:
        notes.print(f"No version yet. See why: spawnctl sessions show {short_id}")
        return
    console.print(changes.versions_table(versions, wide=console.width >= output.WIDE))
    healthy = [version for version in versions if version["healthy"]]
    if len(healthy) < len(versions):
        notes.print("broken: it never ran well. It can be downloaded, not restored.")
    if others := [version["version"] for version in healthy if not version["running"]]:
        notes.print(f"Have one run again: spawnctl sessions restore {short_id} {others[-1]}")


def restore(
    session: SessionArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Its number.")],
    wait: WaitOption = True,
    timeout: TimeoutOption = "1h",
    as_json: AsJson = False,
) -> None:
    """Run an earlier version of an app again. Its link stays the same."""
    timeout_s = duration.parse(timeout) if wait else None
    with Api.from_settings(local.settings()) as api:
        path = f"/api/sessions/{find_session(api, session)}/versions/{version}/restore"
        _request_change(api, path, {}, timeout_s, as_json=as_json)


def _request_change(
    api: Api, path: str, body: Mapping[str, Any], timeout_s: float | None, *, as_json: bool
) -> None:
    """Ask for a change, and wait for its end unless `timeout_s` is None. Raises Problem."""
    response = api.post_idempotent(path, body, idempotency_key=uuid.uuid4().hex)
    if timeout_s is None:
        _print_number(response, as_json=as_json)
        return
    ending = waits.wait_for_change(api, response, timeout_s)
    if not as_json:
        waits.print_change(ending)
        return
    output.print_json(ending)
    if ending["message"]["state"] != "done":
        raise waits.change_failed(ending["message"], ending["session"])


def _print_number(response: Json, *, as_json: bool) -> None:
    if as_json:
        output.print_json(response)
        return
    message, short_id = response["message"], output.short_id(response["session"]["session_id"])
    output.stderr().print(
        f"It is {message['state']}. See it: spawnctl sessions messages {short_id}"
    )
    print(message["number"])
