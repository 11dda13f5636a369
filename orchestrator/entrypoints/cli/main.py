"""spawnctl's entry point: loads the command's module, runs it, and prints what went wrong.

Only the module of the command that the user asks for is loaded. The configuration alone takes
longer to load than all of `spawnctl --help`, and doctor's Docker SDK takes as long again. COMMANDS
has the help lines of the other commands; a test compares them with the modules.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from orchestrator.domain import errors
from orchestrator.entrypoints.cli import exits, lazy, output, problems
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

# Module -> its commands, each with the line that `spawnctl --help` shows.
COMMANDS: lazy.Table = {
    "up": {
        "up": "Start everything on this machine: redis, nginx, api, workers, daemon.",
        "down": "Stop everything on this machine.",
    },
    "status": {
        "status": "Show the state of the whole installation.",
        "pool": "Show hosts, slots, sandboxes and queues.",
    },
    "run": {
        "run": "Make an app from a prompt, and print its link.",
        "templates": "List the apps that start at once, without Claude.",
    },
    "sessions.group": {"sessions": "List, show, change, end and extend sessions; read their logs."},
    "hosts.group": {"hosts": "Add machines to the pool, look after them, take them out."},
    "image": {"image": "Build the runtime image of the sandboxes, show it, send it to hosts."},
    "usage": {"usage": "Show what the calls to the model used: tokens and cost."},
    "audit": {"audit": "Show who did what: sessions, hosts, refused tokens."},
    "keys": {"keys": "Make, list and revoke API keys."},
    "config": {"config": "Show every setting, and where its value comes from."},
    "doctor": {"doctor": "Check this machine, and say how to fix what is wrong."},
    "version": {"version": "Print the version."},
}

_EPILOG = "Exit codes: " + ", ".join(
    f"{code.value} {meaning}" for code, meaning in exits.MEANINGS.items()
)


def main() -> None:
    """Run one command. Never ends in a traceback."""
    arguments = sys.argv[1:]
    try:
        build(arguments)(arguments, prog_name="spawnctl")
    except Problem as problem:
        _exit(problem)
    except errors.SpawnError as error:
        _exit(problems.from_error(error))
    except Exception as error:  # noqa: BLE001 - the last handler: a person reads this
        if os.environ.get("SPAWN_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        _exit(
            Problem(
                Exit.FAILED,
                "unexpected",
                f"{type(error).__name__}: {error}",
                "See where: SPAWN_LOG_LEVEL=debug spawnctl ...",
            )
        )


def build(arguments: Sequence[str]) -> typer.Typer:
    """The application. Only the command that `arguments` name is loaded."""
    app = typer.Typer(
        name="spawnctl",
        help="Run SpawnAI: from a prompt to the link of a running web app.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    lazy.add_commands(app, COMMANDS, lazy.command_words(arguments))
    return app


def _exit(problem: Problem) -> None:
    output.print_problem(problem)
    raise SystemExit(problem.exit_code)


if __name__ == "__main__":
    main()
