"""spawnctl: entry point. Finds the command's module, runs it, and says what went wrong.

Each command's module is loaded only when that command is asked for: config alone costs more than
the whole of `spawnctl --help`, and doctor's Docker SDK as much again. COMMANDS holds what the help
shows of the others; a test compares it with the modules.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence

import typer

from orchestrator.domain import errors
from orchestrator.entrypoints.cli import exits, lazy, output, problems
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

# Module -> its commands, each with the line that `spawnctl --help` shows.
COMMANDS: Mapping[str, Mapping[str, str]] = {
    "up": {
        "up": "Start everything on this machine: redis, nginx, api, workers, daemon.",
        "down": "Stop everything on this machine.",
    },
    "status": {"status": "Show the whole installation at a glance."},
    "run": {"run": "Make an app from a prompt, and print its link."},
    "sessions.group": {"sessions": "List, show, change, end and extend sessions; read their logs."},
    "pool": {"pool": "Show hosts, slots, sandboxes and queues."},
    "hosts.group": {"hosts": "Add machines to the pool, look after them, take them out."},
    "templates": {"templates": "List the apps that start at once, without Claude."},
    "image": {"image": "Build the runtime image of the sandboxes, show it, send it to hosts."},
    "usage": {"usage": "Show what calls to the model came to: tokens and cost."},
    "keys": {"keys": "Make, list and revoke API keys."},
    "config": {"config": "Show every setting, and where its value came from."},
    "doctor": {"doctor": "Check this machine, and say how to mend what is wrong."},
    "version": {"version": "Print the version."},
}

_EPILOG = "Exit codes: " + ", ".join(
    f"{code.value} {meaning}" for code, meaning in exits.MEANINGS.items()
)


def main() -> None:
    """Run one command; never ends in a traceback."""
    arguments = sys.argv[1:]
    try:
        build(arguments)(arguments, prog_name="spawnctl")
    except Problem as problem:
        _end(problem)
    except errors.SpawnError as error:
        _end(problems.from_error(error))
    except Exception as error:  # noqa: BLE001 - the last handler: a person reads this
        if os.environ.get("SPAWN_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        _end(
            Problem(
                Exit.FAILED,
                "unexpected",
                f"{type(error).__name__}: {error}",
                "See where: SPAWN_LOG_LEVEL=debug spawnctl ...",
            )
        )


def build(arguments: Sequence[str]) -> typer.Typer:
    """The application: whole for the command that is asked for, and by name for the others."""
    wanted = lazy.words(arguments)
    app = typer.Typer(
        name="spawnctl",
        help="Run SpawnAI: from a prompt to the link of a running web app.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    lazy.fill(app, COMMANDS, wanted)
    return app


def _end(problem: Problem) -> None:
    output.problem(problem)
    raise SystemExit(problem.exit_code)


if __name__ == "__main__":
    main()
