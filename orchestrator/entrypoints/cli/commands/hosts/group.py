"""`spawnctl hosts`: the group of the commands about hosts. COMMANDS says which module has which."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from orchestrator.entrypoints.cli import lazy

COMMANDS: lazy.Table = {
    "hosts.joining": {
        "key": "Print the public key that lets SpawnAI into a host, and where to put it.",
        "doctor": "Check a machine, in the pool or not, and say how to fix what is wrong.",
        "add": "Add a machine to the pool after checking it.",
    },
    "hosts.setup": {
        "bootstrap": "Set up a bare machine over SSH; --dry-run prints how.",
        "cloud-init": "Print the cloud-init that sets up a machine at its first start.",
    },
    "hosts.operating": {
        "list": "List hosts: their state, their link, their free slots.",
        "show": "Show one host, and the sandboxes on it.",
        "cordon": "Place nothing new on a host; what runs there stays.",
        "uncordon": "Place new sandboxes on a host again; a drain ends too.",
        "drain": "Empty a host: its sessions move to other hosts, and keep their links.",
        "remove": "Take a host out of the pool.",
    },
    "hosts.shell": {"exec": "Run a command on a host, over a connection of its own."},
    "hosts.direct": {
        "direct": "Reach a host's Docker while the daemon, Redis and the database are all down."
    },
}


def register(app: typer.Typer, words: Sequence[str] = ()) -> None:
    """Add the group. `words` are the subcommand and what follows: only its module is loaded."""
    group = typer.Typer(
        help="Add machines to the pool, look after them, take them out.", no_args_is_help=True
    )
    lazy.add_commands(group, COMMANDS, words)
    app.add_typer(group, name="hosts")
