"""A real sshd on loopback, with a configuration, host keys and authorized keys of its own.

What is behind it is this machine, with this machine's Docker. Used by test_hosts_cli.py.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 20
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel VERBOSE
"""


@dataclass(frozen=True, kw_only=True)
class SshServer:
    """One that runs."""

    port: int
    folder: Path

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def fingerprint(self) -> str:
        said = _run("ssh-keygen", "-lf", str(self.folder / "host_key.pub"))
        return said.split()[1]

    @property
    def host_key(self) -> str:
        """What gets pinned."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def authorize(self, public_line: str) -> None:
        with (self.folder / "authorized_keys").open("a") as keys:
            keys.write(public_line.strip() + "\n")

    def make_host_key(self) -> None:
        """Another one than before; it is shown once sshd is started again."""
        for path in self.folder.glob("host_key*"):
            path.unlink()
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))


@contextlib.contextmanager
def serving(*settings: str, port: int = 0) -> Iterator[SshServer]:
    """sshd with these lines of configuration on top, until the end of the block."""
    sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    assert sshd, "these tests need OpenSSH's server: apt install openssh-server"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd's children are locked in
    with tempfile.TemporaryDirectory(prefix="spawn-sshd-") as name:
        folder = Path(name)
        server = SshServer(port=port or _free_port(), folder=folder)
        server.make_host_key()
        (folder / "authorized_keys").touch()
        # The first value of a setting is the one that counts.
        config = "\n".join(settings) + _CONFIG.format(port=server.port, folder=folder)
        (folder / "config").write_text(config)
        with running(sshd, server):
            yield server


@contextlib.contextmanager
def running(sshd: str, server: SshServer) -> Iterator[None]:
    """The process itself; what it forked ends with its connections."""
    log = server.folder / "log"
    argv = [sshd, "-D", "-f", str(server.folder / "config"), "-E", str(log)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        _await_port(server.port, process, log)
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends, f"sshd does not listen: {log.read_text()}"
            time.sleep(0.02)
        else:
            return


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
