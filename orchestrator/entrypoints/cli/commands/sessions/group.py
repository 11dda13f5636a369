"""`spawnctl sessions`: everybody's sessions, for operators."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from orchestrator.domain.sessions.session import SessionState
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands.sessions import changes, ids
from orchestrator.entrypoints.cli.commands.sessions import logs as session_logs
from orchestrator.entrypoints.cli.commands.sessions.ids import SessionArgument
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import sessions as session_view


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="List, show, change, end and extend sessions; read their logs.",
        no_args_is_help=True,
    )
    group.command("list")(list_them)
    group.command()(show)
    changes.register(group)
    group.command()(kill)
    group.command()(extend)
    group.command()(logs)
    app.add_typer(group, name="sessions")


def list_them(
    state: Annotated[SessionState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=ids.ALL, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List sessions, newest first."""
    with Api.of(local.settings()) as api:
        wanted = state.value if state is not None else None
        found = api.get("/api/admin/sessions", state=wanted, limit=limit)
    if as_json:
        output.as_json(found)
        return
    console = output.stdout()
    if not found["sessions"]:
        output.stderr().print('No sessions. Make one: spawnctl run "a kanban board"')
        return
    made: Table = session_view.listing(found["sessions"], wide=console.width >= output.WIDE)
    console.print(made)


def show(session: SessionArgument, as_json: AsJson = False) -> None:
    """Show one session: its link, its times, its version, its cost, and what went wrong."""
    with Api.of(local.settings()) as api:
        session_id = ids.find(api, session)
        found = api.get(f"/api/admin/sessions/{session_id}")
        if as_json:
            output.as_json(found)
            return
        versions = api.get(f"/api/sessions/{session_id}/versions")["versions"]
        usage = api.get(f"/api/sessions/{session_id}/usage")
    for part in session_view.story(found, versions, usage):
        output.stdout().print(part)


def kill(
    sessions: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Sessions' ids, or their beginnings.")
    ],
    as_json: AsJson = False,
) -> None:
    """End sessions now. What can't be ended is said, and the others are ended all the same."""
    ended, refused = [], []
    with Api.of(local.settings()) as api:
        for text in sessions:
            try:
                ended.append(api.delete(f"/api/admin/sessions/{ids.find(api, text)}"))
            except Problem as problem:
                if problem.exit_code is Exit.UNREACHABLE:
                    raise
                refused.append(problem)
    if as_json:
        output.as_json({"sessions": ended})
    else:
        for one in ended:
            over = one["status"] in {SessionState.DESTROYED, SessionState.FAILED}
            said = f"had ended before ({one['status']})" if over else "is ending"
            print(f"{output.plain(one['session_id'])} {said}")
    for one_more in refused[1:]:
        output.problem(one_more)
    if refused:
        raise refused[0]


def extend(
    session: SessionArgument,
    ttl: Annotated[
        str, typer.Argument(metavar="TTL", help="From now on, e.g. 2h; may be less than is left.")
    ],
    as_json: AsJson = False,
) -> None:
    """Give a session a new time to live, counted from now."""
    with Api.of(local.settings()) as api:
        path = f"/api/admin/sessions/{ids.find(api, session)}/extend"
        found = api.post(path, {"ttl": ttl})
    if as_json:
        output.as_json(found)
        return
    at, left = output.clock(found["expires_at"]), output.until(found["expires_at"])
    print(f"{output.plain(found['session_id'])} ends at {at}, in {left}")


def logs(
    session: SessionArgument,
    limit: Annotated[int, typer.Option(min=1, max=ids.ALL, help="The last so many lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what an app wrote to its output."""
    with Api.of(local.settings()) as api:
        session_id = ids.find(api, session)
        if follow:
            session_logs.follow(api, session_id, limit, as_json=as_json)
            return
        found = api.get(f"/api/admin/sessions/{session_id}/logs", limit=limit)
    if as_json:
        output.as_json(found)
    else:
        session_logs.print_lines(found["lines"], as_json=False)
        if not found["lines"]:
            output.stderr().print("It has printed nothing.")
