"""Waiting for a change of an app, and saying how it ended. Used by `spawnctl sessions message` and
`restore`.

As with run, stdout gets the link alone, and only if the change was made.
"""

from __future__ import annotations

from rich.text import Text

from orchestrator.domain import duration
from orchestrator.domain.sessions.session import ENDED
from orchestrator.entrypoints.cli import output, problems
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.commands.sessions import following
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views.progress import Display, for_stderr, say_short

_OVER = {"done", "failed"}
_NOBODY_SAID = {"code": "session_ended", "message": "the session ended before this was done"}


def until_over(api: Api, asked: Json, timeout_s: float) -> Json:
    """Show how it goes until the change is done or has failed: the API's message and session as
    they are then. Raises Problem (wait_timeout, interrupted): the change goes on without us."""
    see = f"See it: spawnctl sessions messages {output.short(asked['session']['session_id'])}"
    number = asked["message"]["number"]
    try:
        with for_stderr() as display:
            over = _follow(api, asked["session"], number, display, timeout_s)
    except KeyboardInterrupt:
        raise following.interrupted(f"change {number}", see) from None
    if over is None:
        said = f"change {number} isn't over after {duration.say(timeout_s)}; it goes on"
        raise following.late(said, see)
    return over


def report(over: Json) -> None:
    """The end of the story. Raises Problem for a change that came to nothing."""
    message, session = over["message"], over["session"]
    if message["state"] != "done":
        raise failed(message, session)
    console = output.stderr()
    took_s = output.seconds_between(message["created_at"], message["ended_at"])
    restored = " again" if message["kind"] == "restore" else ""
    came_to = f" after {say_short(took_s)}: version {message['version']} runs{restored}"
    console.print(Text.assemble(("Done", "green"), came_to))
    if message["summary"]:
        console.print(Text(output.lines(message["summary"])))
    if session["url"] is None:
        raise _without_link(session)
    print(session["url"])


def as_asked_for(status: Json, number: int) -> Json:
    """A session's status as whoever waits for this change of it sees it: until it is its turn, what
    is being done is somebody else's progress."""
    change = status["change"]
    if change is not None and change["number"] == number:
        return status
    if status["ready"]:
        said = "Waits for its turn"
    else:
        first = "The app itself" if change is None else f"Change {change['number']}"
        said = f"{first} first: {status['message']}"
    return {**status, "status": "waiting", "progress": 0, "message": said}


def failed(message: Json, session: Json) -> Problem:
    """A change that came to nothing, and what serves now."""
    error = message["error"] or _NOBODY_SAID
    short = output.short(session["session_id"])
    said = str(error["message"])
    if session["url"] is not None:
        said += f"\nThe version before goes on serving: {session['url']}"
    return Problem(
        Exit.FAILED,
        str(error["code"]),
        said,
        *problems.advice_for(str(error["code"])),
        f"All that was asked for: spawnctl sessions messages {short}",
        f"The whole story: spawnctl sessions show {short}",
    )


def _follow(api: Api, first: Json, number: int, display: Display, timeout_s: float) -> Json | None:
    session_id = first["session_id"]
    for status in following.statuses(api, first, None, timeout_s):
        # In this order: the change is never older than the status that says whether to ask again.
        found = api.get_patiently(f"/api/sessions/{session_id}/messages")["messages"]
        message = {one["number"]: one for one in found}[number]
        if message["state"] in _OVER or status["status"] in ENDED:
            session = api.get_patiently(f"/api/status/{session_id}")
            return {"message": message, "session": session}
        display.show(as_asked_for(status, number))
    return None


def _without_link(session: Json) -> Problem:
    short = output.short(session["session_id"])
    return Problem(
        Exit.FAILED,
        "app_not_running",
        f"the app itself is {output.plain(session['status'])} since then",
        f"See it: spawnctl sessions show {short}",
    )
