"""`spawnctl sessions`: the sessions of all users, for operators."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.domain import errors, ids
from orchestrator.domain.sessions.session import SessionState
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.arguments import SessionArgument, find_session
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands.sessions import changes, logs
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import sessions


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="List, show, change, end and extend sessions; read their logs.",
        no_args_is_help=True,
    )
    group.command("list")(list_sessions)
    group.command()(show)
    changes.register(group)
    group.command()(kill)
    group.command()(extend)
    logs.register(group)
    app.add_typer(group, name="sessions")


def list_sessions(
    states: Annotated[
        list[SessionState] | None,
        typer.Option("--state", help="Only sessions in this state; may be repeated."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only sessions of this user id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many sessions at most.")] = 50,
    show_all: Annotated[bool, typer.Option("--all", help="All of them, without a limit.")] = False,
    as_json: AsJson = False,
) -> None:
    """List sessions: first those that run or wait, then those that have ended. Newest first."""
    if user is not None and not ids.is_id(user, "usr"):
        message = f"{errors.quoted(user)} is no user's id: it is usr_ and 26 characters"
        raise Problem(Exit.USAGE, "bad_id", message, "See them: spawnctl usage --by user")
    with Api.from_settings(local.settings()) as api:
        response = api.get_pages(
            "/api/admin/sessions",
            "sessions",
            limit=None if show_all else limit,
            state=[state.value for state in states] if states else None,
            user=user,
        )
    if as_json:
        output.print_json(response)
        return
    if not response["sessions"]:
        advice = "" if states or user else ' Make one: spawnctl run "a kanban board"'
        output.stderr().print(f"No sessions.{advice}")
        return
    console = output.stdout()
    wide = console.width >= output.WIDE
    console.print(sessions.sessions_table(response["sessions"], wide=wide))
    if response["next"]:
        output.stderr().print(f"There are more than these {limit}: --limit N or --all shows them.")


def show(session: SessionArgument, as_json: AsJson = False) -> None:
    """Show one session: its link, its times, its version, its cost, and what went wrong."""
    with Api.from_settings(local.settings()) as api:
        session_id = find_session(api, session)
        response = api.get(f"/api/admin/sessions/{session_id}")
        if as_json:
            output.print_json(response)
            return
        versions = api.get(f"/api/sessions/{session_id}/versions")["versions"]
        usage = api.get(f"/api/sessions/{session_id}/usage")
    for part in sessions.details(response, versions, usage):
        output.stdout().print(part)


def kill(
    session_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Ids of sessions, or their beginnings.")
    ],
    as_json: AsJson = False,
) -> None:
    """End sessions now. If one can't be ended, say so and end the others."""
    ended, refusals = [], []
    with Api.from_settings(local.settings()) as api:
        for text in session_ids:
            try:
                ended.append(api.delete(f"/api/admin/sessions/{find_session(api, text)}"))
            except Problem as problem:
                if problem.exit_code is Exit.UNREACHABLE:
                    raise
                refusals.append(problem)
    if as_json:
        output.print_json({"sessions": ended})
    else:
        for session in ended:
            had_ended = session["status"] in {SessionState.DESTROYED, SessionState.FAILED}
            result = f"had ended before ({session['status']})" if had_ended else "is ending"
            print(f"{output.plain(session['session_id'])} {result}")
    for refusal in refusals[1:]:
        output.print_problem(refusal)
    if refusals:
        raise refusals[0]


def extend(
    session: SessionArgument,
    ttl: Annotated[
        str, typer.Argument(metavar="TTL", help="From now on, e.g. 2h; may be less than is left.")
    ],
    as_json: AsJson = False,
) -> None:
    """Give a session a new time to live, counted from now."""
    with Api.from_settings(local.settings()) as api:
        path = f"/api/admin/sessions/{find_session(api, session)}/extend"
        response = api.post(path, {"ttl": ttl})
    if as_json:
        output.print_json(response)
        return
    expires_at = response["expires_at"]
    at, left = output.local_time(expires_at), output.time_left(expires_at)
    print(f"{output.plain(response['session_id'])} ends at {at}, in {left}")
