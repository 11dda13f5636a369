"""Who trusts whom: our key over there, a machine's host key here. Used by `spawnctl hosts`."""

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
    str, typer.Option(metavar="SHA256:...", help="Of the machine's host key, from its console.")
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Trust the host key that the terminal shows.")
]


def public_key(settings: Settings) -> str:
    """Our public line; the pair is made if there is none yet."""
    # Before the first `spawnctl up` too, which then looks whether the folder will do.
    settings.places.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    state = StateFolder(settings.places.state_dir)
    return connection.make_key(settings.places.ssh_key, f"spawnai-{state.instance()}")


def confirm(shown: HostKey, address: HostAddress, fingerprint: str, *, yes: bool) -> None:
    """Raises Problem unless the operator says that this is the machine's key."""
    if fingerprint:
        if fingerprint.strip().rstrip("=") == shown.fingerprint.rstrip("="):
            return
        raise Problem(
            Exit.CONFLICT,
            "fingerprint_mismatch",
            f"{address} shows the host key {shown.fingerprint}, not {output.plain(fingerprint)}",
            _COMPARE,
            "If that is another one than is shown here, somebody stands between.",
        )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Problem(
            Exit.USAGE,
            "fingerprint_needed",
            f"{address} shows the host key {shown.fingerprint}, and there is no terminal to ask on",
            f"{_COMPARE}; if it is the same, add --fingerprint {shown.fingerprint}",
        )
    console = output.stderr()
    console.print(f"{address} shows the host key {shown.fingerprint}")
    if yes:
        return
    console.print(_COMPARE)
    if not typer.confirm("Is it the same?", err=True):
        raise Problem(Exit.CONFLICT, "host_key_refused", "nothing was added")
