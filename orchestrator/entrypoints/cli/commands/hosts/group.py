"""`spawnctl hosts`: the group of the commands about hosts. COMMANDS says which module has which."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from orchestrator.entrypoints.cli import lazy

COMMANDS: lazy.Table = {
    "hosts.joining": {
        "key": "Print the public key that lets SpawnAI into a host, and where to put it.",
        "doctor": "Check a machine, in the pool or not, and say how to mend what is wrong.",
        "add": "Put a machine into the pool, once it was found fit.",
    },
    "hosts.setup": {
        "bootstrap": "Make a bare machine fit over SSH; --dry-run prints how.",
        "cloud-init": "Print the cloud-init of a machine that is fit from its first start.",
    },
    "hosts.operating": {
        "list": "List hosts: their state, their link, their room.",
        "show": "Show one host, and the sandboxes on it.",
        "cordon": "Let nothing new onto a host; what is there stays.",
        "uncordon": "Let new things onto a host again; a drain ends too.",
        "drain": "Empty a host: its sessions move to other hosts, under the same links.",
        "remove": "Take a host out of the pool.",
    },
    "hosts.shell": {"exec": "Run a command on a host, over a connection of its own."},
    "hosts.direct": {
        "direct": "Reach a host's Docker with the daemon, Redis and the database all down."
    },
}


def register(app: typer.Typer, wanted: Sequence[str] = ()) -> None:
    """Add the group, with the subcommand that is asked for and the others by name."""
    group = typer.Typer(
        help="Add machines to the pool, look after them, take them out.", no_args_is_help=True
    )
    lazy.fill(group, COMMANDS, wanted)
    app.add_typer(group, name="hosts")
