"""What goes wrong, for people: message, code and advice. Raised by commands, printed by `main`.

Imports no HTTP library: loading one would slow down `spawnctl --help`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.domain import duration, errors
from orchestrator.entrypoints.cli import exits
from orchestrator.entrypoints.cli.exits import Exit

Json = Mapping[str, Any]


class Problem(Exception):
    """Ends a command. `advice` says what to do, one line each; may be empty."""

    def __init__(self, exit_code: Exit, code: str, message: str, *advice: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code  # stable, for programs
        self.message = message
        self.advice = tuple(line for line in advice if line)


def from_response(status: int, body: Json | None) -> Problem:
    """The problem that a response of the API reports. `body` is its problem+json; None if it has
    none."""
    if body is None or "code" not in body:
        if status in {502, 503, 504}:
            return unreachable(f"the proxy answers, but the API behind it does not ({status})")
        return Problem(exits.for_status(status), f"http_{status}", f"the API answered {status}")
    code = str(body["code"])
    message = str(body.get("detail") or body.get("title") or f"the API answered {status}")
    return Problem(exits.for_status(status), code, message, *_advice(status, code, body))


def from_error(error: errors.SpawnError) -> Problem:
    """The problem for an error that our own code raised in this process."""
    exit_code = Exit.FAILED
    if isinstance(error, errors.InvalidInput):
        exit_code = Exit.USAGE
    elif isinstance(error, errors.EngineUnavailable):
        exit_code = Exit.UNREACHABLE
    elif isinstance(error, errors.NotFound):
        exit_code = Exit.NOT_FOUND
    elif isinstance(error, errors.Conflict):
        exit_code = Exit.CONFLICT
    return Problem(exit_code, error.code, str(error), *advice_for(error.code))


def unreachable(message: str) -> Problem:
    """The control plane does not answer."""
    return Problem(
        Exit.UNREACHABLE,
        "unreachable",
        message,
        "Start it: spawnctl up",
        "If it should be running: spawnctl doctor",
    )


_ADVICE: Mapping[str, str] = {
    "storage_unavailable": "Look at the disk: dmesg | tail; df. If the state folder can't be read,"
    " end SpawnAI before you repair it: pgrep -f entrypoints.supervisor, then kill PID",
    "unauthorized": "Set SPAWN_API_KEY to a key, or run as the user who started SpawnAI:"
    " the state folder has its operator.key.",
    "forbidden": "Use an operator's key: spawnctl keys create NAME --role operator",
    "not_found": "See what there is: spawnctl sessions list, spawnctl keys list",
    "session_unknown": "See what there is: spawnctl sessions list",
    "session_ending": 'Start a new one: spawnctl run "PROMPT"',
    "host_unknown": "See what there is: spawnctl hosts list",
    "host_exists": "See it: spawnctl hosts list",
    "machine_known": "See it: spawnctl hosts list",
    "messages_full": "See what waits: spawnctl sessions messages ID",
    "message_empty": 'For example: spawnctl sessions message ID "make it blue"',
    "message_too_large": "Say it in fewer words, or in several messages, one after the other.",
    "version_unknown": "See what there is: spawnctl sessions versions ID",
    "version_not_healthy": "See which can be restored: spawnctl sessions versions ID",
    "version_running": "There is nothing to do. See the others: spawnctl sessions versions ID",
    "provider_unavailable": "Try again in a while; spawnctl doctor says what it knows.",
    "provider_auth": "See which key was refused: spawnctl doctor",
    "provider_no_credit": "See which account is empty: spawnctl doctor",
    "template_unknown": "See what there is: spawnctl templates",
    "too_many_sessions": "End one first: spawnctl sessions list, spawnctl sessions kill ID",
    "budget_exhausted": "See who spent it: spawnctl usage --by user. SPAWN_BUDGET_... set budgets.",
    "prompt_empty": 'For example: spawnctl run "a kanban board", or: spawnctl run -t kanban',
    "internal": "The state folder's log/api.log says what happened.",
}


def advice_for(code: str) -> list[str]:
    """The advice that depends on a problem's code alone; [] if there is none."""
    return [_ADVICE[code]] if code in _ADVICE else []


def _advice(status: int, code: str, body: Json) -> list[str]:
    """The advice that depends on the code and on the other members of the problem."""
    if code in {"ttl_not_allowed", "ttl_out_of_range"} and "min_s" in body and "max_s" in body:
        low, high = duration.to_text(body["min_s"]), duration.to_text(body["max_s"])
        return [f"Choose between {low} and {high}, e.g. --ttl 2h"]
    if code == "generation_unavailable":
        setting = body.get("setting", "ANTHROPIC_API_KEY")
        return [
            f"Set {setting} in the environment or in the state folder's spawn.env, and restart.",
            "Or start a template: spawnctl templates, spawnctl run --template NAME",
        ]
    advice = advice_for(code)
    if status in {429, 503} and "retry_after_s" in body:
        advice.append(f"Or try again in {duration.to_text(body['retry_after_s'])}.")
    return advice
