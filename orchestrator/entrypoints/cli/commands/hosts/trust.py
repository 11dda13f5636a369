"""Trust in both directions: our public key for a machine, and the machine's host key for us.

Used by `spawnctl hosts key`, `add` and `bootstrap`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.ssh import connection
from orchestrator.adapters.ssh.connection import HostKey
from orchestrator.config import Settings
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli import output
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

_COMPARE = "Compare it on the machine's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"

AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="ssh://user@host or ssh://user@host:port")
]
FingerprintOption = Annotated[
    str,
    typer.Option(
        metavar="SHA256:...", help="Fingerprint of the machine's host key, from its console."
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Trust the host key that the terminal shows.")
]


def ensure_public_key(settings: Settings) -> str:
    """The line of our public key. Makes the key pair if there is none yet."""
    # Works before the first `spawnctl up` too, which then checks the folder.
    settings.places.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    state = StateFolder(settings.places.state_dir)
    return connection.ensure_key(settings.places.ssh_key, f"spawnai-{state.instance()}")


def confirm_host_key(
    host_key: HostKey, address: HostAddress, fingerprint: str, *, yes: bool
) -> None:
    """Compare the machine's host key with `fingerprint`, or ask the operator. Raises Problem unless
    it is confirmed."""
    if fingerprint:
        if fingerprint.strip().rstrip("=") == host_key.fingerprint.rstrip("="):
            return
        raise Problem(
            Exit.CONFLICT,
            "fingerprint_mismatch",
            f"{address} shows the host key {host_key.fingerprint}, not {output.plain(fingerprint)}",
            _COMPARE,
            "If the console shows another key than this one, somebody intercepts the connection.",
        )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Problem(
            Exit.USAGE,
            "fingerprint_needed",
            f"{address} shows the host key {host_key.fingerprint}, and there is no terminal to ask"
            " on",
            f"{_COMPARE}; if it is the same, add --fingerprint {host_key.fingerprint}",
        )
    console = output.stderr()
    console.print(f"{address} shows the host key {host_key.fingerprint}")
    if yes:
        return
    console.print(_COMPARE)
    if not typer.confirm("Is it the same?", err=True):
        raise Problem(Exit.CONFLICT, "host_key_refused", "nothing was added")
