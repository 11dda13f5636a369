"""Waiting for a session, or for a change of its app. Used by `spawnctl run`, `sessions message` and
`sessions restore`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.text import Text

from orchestrator.domain import duration
from orchestrator.domain.sessions.session import ENDED
from orchestrator.entrypoints.cli import output, problems
from orchestrator.entrypoints.cli.client import Api, Json
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views.progress import Display, open_display, seconds_text

_LONG_POLL_S = 25  # below the 30-60 s after which proxies on the way give up
_POLL_PAUSE_S = 0.2  # between polls that the API answers at once because it is about to stop

_CHANGE_ENDED = {"done", "failed"}
_SESSION_ENDED = {"code": "session_ended", "message": "the session ended before this was done"}


def statuses(api: Api, first: Json, etag: str | None, timeout_s: float) -> Iterator[Json]:
    """Yield `first`, and then each status that differs from the one before, until the timeout.
    `etag` is that of `first`; None gets the status again, at once. Raises Problem."""
    deadline = time.monotonic() + timeout_s
    yield first
    while (left_s := deadline - time.monotonic()) > 0:
        polled_at = time.monotonic()
        wait_s = max(1, min(_LONG_POLL_S, int(left_s))) if etag else 0
        polled = api.poll(first["session_id"], etag, wait_s)
        if polled.status is not None:
            etag = polled.etag
            yield polled.status
        else:
            time.sleep(max(0.0, _POLL_PAUSE_S - (time.monotonic() - polled_at)))


def timed_out(message: str, *advice: str) -> Problem:
    """The time that the user would wait is over. What they wait for goes on."""
    return Problem(Exit.FAILED, "wait_timeout", message, *advice)


def interrupted(subject: str, *advice: str) -> Problem:
    """The user pressed Ctrl-C. `subject` goes on."""
    message = f"stopped waiting; {output.plain(subject)} goes on"
    return Problem(Exit.INTERRUPTED, "interrupted", message, *advice)


def wait_for_change(api: Api, response: Json, timeout_s: float) -> Json:
    """Show progress until the change is done or has failed.

    `response` is what the API returned to the request for the change: its message and session.
    Returns both as they are at the end. Raises Problem (wait_timeout, interrupted): the change goes
    on.
    """
    short_id = output.short_id(response["session"]["session_id"])
    advice = f"See it: spawnctl sessions messages {short_id}"
    number = response["message"]["number"]
    try:
        with open_display() as display:
            ending = _follow_change(api, response["session"], number, display, timeout_s)
    except KeyboardInterrupt:
        raise interrupted(f"change {number}", advice) from None
    if ending is None:
        waited = duration.to_text(timeout_s)
        raise timed_out(f"change {number} isn't over after {waited}; it goes on", advice)
    return ending


def print_change(ending: Json) -> None:
    """Print how a change ended. stdout gets the link alone. Raises Problem if the change failed, or
    if the app has no link."""
    message, session = ending["message"], ending["session"]
    if message["state"] != "done":
        raise change_failed(message, session)
    console = output.stderr()
    took_s = output.seconds_between(message["created_at"], message["ended_at"])
    again = " again" if message["kind"] == "restore" else ""
    result = f" after {seconds_text(took_s)}: version {message['version']} runs{again}"
    console.print(Text.assemble(("Done", "green"), result))
    if message["summary"]:
        console.print(Text(output.plain_lines(message["summary"])))
    if session["url"] is None:
        raise _without_link(session)
    print(session["url"])


def status_for_change(status: Json, number: int) -> Json:
    """A session's status as the user who waits for change `number` should see it.

    While another change is in progress, its progress is not shown as that of this change.
    """
    change = status["change"]
    if change is not None and change["number"] == number:
        return status
    if status["ready"]:
        message = "Waits for its turn"
    else:
        current = "The app itself" if change is None else f"Change {change['number']}"
        message = f"{current} first: {status['message']}"
    return {**status, "status": "waiting", "progress": 0, "message": message}


def change_failed(message: Json, session: Json) -> Problem:
    """Why a change failed, and the version that serves now."""
    error = message["error"] or _SESSION_ENDED
    short_id = output.short_id(session["session_id"])
    text = str(error["message"])
    if session["url"] is not None:
        text += f"\nThe version before goes on serving: {session['url']}"
    return Problem(
        Exit.FAILED,
        str(error["code"]),
        text,
        *problems.advice_for(str(error["code"])),
        f"All that was asked for: spawnctl sessions messages {short_id}",
        f"The whole story: spawnctl sessions show {short_id}",
    )


def _follow_change(
    api: Api, first: Json, number: int, display: Display, timeout_s: float
) -> Json | None:
    session_id = first["session_id"]
    for status in statuses(api, first, None, timeout_s):
        # In this order: the messages must not be older than the status. A status that says that the
        # session has ended then comes with the final state of the change.
        messages = api.get_with_retry(f"/api/sessions/{session_id}/messages")["messages"]
        message = {message["number"]: message for message in messages}[number]
        if message["state"] in _CHANGE_ENDED or status["status"] in ENDED:
            session = api.get_with_retry(f"/api/status/{session_id}")
            return {"message": message, "session": session}
        display.show(status_for_change(status, number))
    return None


def _without_link(session: Json) -> Problem:
    short_id = output.short_id(session["session_id"])
    return Problem(
        Exit.FAILED,
        "app_not_running",
        f"the app itself is {output.plain(session['status'])} since then",
        f"See it: spawnctl sessions show {short_id}",
    )
