"""SSH as we use it everywhere: our own key, pinned host keys, no agent and no user's config.

The daemon's links, the image push and spawnctl connect through this module. It turns foreign errors
into errors.LinkDown, whose message says what to do on which side.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from orchestrator.adapters import durable
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress

CONNECT_TIMEOUT_S = 10.0  # for TCP and the key exchange
LOGIN_TIMEOUT_S = 10.0
KEEPALIVE_S = 5  # the connection ends after KEEPALIVE_MISSES requests without a response
KEEPALIVE_MISSES = 3
COMMAND_TIMEOUT_S = 30.0  # the default for one remote command
_OUTPUT_MAX_BYTES = 1024**2  # of each stream of one command: every answer that we ask for is short
_QUOTE_MAX = 80  # characters of a greeting that an error quotes
_MARKER = b"@@spawnai@@"
# A login shell may print a greeting before it runs our command. The marker, on a line of its own,
# separates the two on both streams.
_MARKED = (
    f'printf "\\n%s\\n" {_MARKER.decode()}; printf "\\n%s\\n" {_MARKER.decode()} >&2; exec "$@"'
)


@dataclass(frozen=True, kw_only=True)
class HostKey:
    """The key that a server presented, before anybody trusts it."""

    line: str  # "ssh-ed25519 AAAA...", without a comment: what gets pinned
    fingerprint: str  # "SHA256:...", as `ssh-keygen -l` prints it


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """The result of one command on a host."""

    code: int  # exit status; 255 when a signal ended it
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, for people."""
        return "\n".join(part for part in (self.stdout.strip(), self.stderr.strip()) if part)


def ensure_key(path: Path, comment: str) -> str:
    """Create our key pair at `path` (mode 0600, folder 0700) unless it exists.

    Return the public key as a line for authorized_keys. Raises errors.StorageUnavailable.
    """
    with errors.storage("make our SSH key"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        if not path.exists():
            # All hosts know this key: a loss of power must not cost it.
            key = asyncssh.generate_private_key("ssh-ed25519").export_private_key()
            durable.create_file(path, key)
    return public_key_line(path, comment)


def public_key_line(path: Path, comment: str) -> str:
    """Return the public key as a line for authorized_keys.

    Raises errors.NotFound when there is no key yet, errors.InvalidInput when the file has none.
    """
    try:
        key = asyncssh.read_private_key(path)
    except FileNotFoundError as error:
        raise errors.NotFound(f"there is no SSH key at {path}: run `spawnctl up` once") from error
    except asyncssh.KeyImportError as error:
        raise errors.InvalidInput(
            f"{path} is no private SSH key: put it back from your backup, or delete it and add our"
            " new key to the hosts",
            field="ssh_key",
        ) from error
    return f"{_key_line(key)} {comment}"


async def fetch_host_key(address: HostAddress, *, timeout_s: float = CONNECT_TIMEOUT_S) -> HostKey:
    """Return the key that the server at this address presents now.

    Raises errors.LinkDown (unreachable).
    """
    try:
        async with asyncio.timeout(timeout_s):
            key = await asyncssh.get_server_host_key(
                address.host, address.port, server_host_key_algs=_PREFERRED, config=None
            )
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise connect_error(error, address) from error
    if key is None:
        raise errors.LinkDown(f"{address} presented no host key", code="unreachable")
    return HostKey(line=_key_line(key), fingerprint=key.get_fingerprint())


def fingerprint(line: str) -> str:
    """Return the fingerprint of a pinned line, as `ssh-keygen -l` prints it."""
    return asyncssh.import_public_key(line).get_fingerprint()


async def connect(address: HostAddress, *, key: Path, pinned: str) -> asyncssh.SSHClientConnection:
    """Connect and log in. `pinned` is the line of the only host key that is accepted.

    Raises errors.LinkDown (unreachable, host_key_changed, login_refused).
    """
    trusted = asyncssh.import_public_key(pinned)
    try:
        return await asyncssh.connect(
            address.host,
            address.port,
            username=address.user,
            config=None,  # disables ~/.ssh/config; the next lines disable agent and known_hosts
            agent_path=None,
            client_keys=[str(key)],
            known_hosts=([trusted], [], []),
            # A server has several keys: make it present the one that we know.
            server_host_key_algs=_algorithms(trusted),
            preferred_auth="publickey",
            gss_host=None,
            x509_trusted_certs=None,
            compression_algs=None,
            connect_timeout=CONNECT_TIMEOUT_S,
            login_timeout=LOGIN_TIMEOUT_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_MISSES,
        )
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise connect_error(error, address) from error


@asynccontextmanager
async def open_connection(
    address: HostAddress, *, key: Path, pinned: str
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Like `connect`, but close the connection at the end of the block."""
    connection = await connect(address, key=key, pinned=pinned)
    try:
        yield connection
    finally:
        connection.close()
        await connection.wait_closed()


async def run(
    connection: asyncssh.SSHClientConnection,
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> CommandResult:
    """Run one command, its words quoted for the remote shell.

    A greeting that the login shell prints first is left out. Raises errors.LinkDown when the
    connection ends or accepts no more sessions, errors.Temporary (run_timed_out), errors.HostUnfit
    (shell_interferes, output_too_long).
    """
    try:
        async with asyncio.timeout(timeout_s):
            process = await connection.create_process(
                marked(argv), input=stdin.encode(), encoding=None
            )
            async with process:
                stdout, stderr = await asyncio.gather(
                    _read_bounded(process.stdout, argv[0]), _read_bounded(process.stderr, argv[0])
                )
                await process.wait_closed()
    except TimeoutError as error:
        raise errors.Temporary(
            f"{argv[0]} did not end within {timeout_s:g} s", code="run_timed_out"
        ) from error
    except (OSError, asyncssh.Error) as error:
        raise connection_lost(error) from error
    if process.exit_status is None and _MARKER not in stdout:
        raise errors.LinkDown("the connection ended during the command", code="unreachable")
    return CommandResult(
        code=process.exit_status if process.exit_status is not None else 255,
        stdout=without_greeting(stdout).decode(errors="replace"),
        stderr=stderr.rpartition(_MARKER + b"\n")[2].decode(errors="replace"),
    )


def marked(argv: Sequence[str]) -> str:
    """The command line that runs `argv` on a host after it has printed our marker."""
    return shlex.join(("sh", "-c", _MARKED, "sh", *argv))


def without_greeting(output: bytes) -> bytes:
    """What a `marked` command itself printed. Raises errors.HostUnfit (shell_interferes)."""
    greeting, marker, rest = output.partition(b"\n" + _MARKER + b"\n")
    if not marker:
        raise _shell_interferes(greeting)
    return rest


async def skip_greeting(stream: asyncssh.SSHReader[bytes]) -> None:
    """Read up to the end of the marker.

    Raises errors.HostUnfit (shell_interferes) when the stream ends, or goes on and on, without it.
    """
    try:
        await stream.readuntil(b"\n" + _MARKER + b"\n")
    except asyncio.IncompleteReadError as error:
        raise _shell_interferes(error.partial) from error


async def _read_bounded(stream: asyncssh.SSHReader[bytes], program: str) -> bytes:
    """All that a command prints. Raises errors.HostUnfit (output_too_long)."""
    chunks, size_bytes = [], 0
    while chunk := await stream.read(64 * 1024):
        chunks.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > _OUTPUT_MAX_BYTES:
            raise errors.HostUnfit(
                f"{program} printed more than {_OUTPUT_MAX_BYTES // 1024} KiB there: does a"
                " start-up file of that user's shell print without end?",
                code="output_too_long",
            )
    return b"".join(chunks)


def _shell_interferes(output: bytes) -> errors.HostUnfit:
    text = " ".join(output.decode(errors="replace").split())
    printable = "".join(char for char in text if char.isprintable())[:_QUOTE_MAX]
    printed = f"printed {printable!r}" if printable else "printed nothing"
    return errors.HostUnfit(
        f"the login shell there {printed} and did not run our command: a start-up file of that"
        " user (~/.bashrc, ~/.profile) or a forced command in authorized_keys prevents it. Put"
        " `[ -t 1 ] || return` at the head of ~/.bashrc, or remove the forced command",
        code="shell_interferes",
    )


def connect_error(error: BaseException, address: HostAddress) -> errors.LinkDown:
    """Turn an error of asyncssh or the system during a connect into ours, with what to do."""
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return host_key_changed(address)
        case asyncssh.PermissionDenied():
            return login_refused(address)
        case asyncssh.KeyExchangeFailed():
            return errors.LinkDown(
                f"{address} has no host key of the pinned kind, or its SSH is too old: {error}",
                code="host_key_changed",
            )
        case socket.gaierror():
            return errors.LinkDown(
                f"the name {address.host} is unknown: check the address", code="unreachable"
            )
        case TimeoutError():
            return errors.LinkDown(
                f"{address} does not answer in time: check the address, the port and the firewalls"
                " in between",
                code="unreachable",
            )
        case ConnectionRefusedError():
            return errors.LinkDown(
                f"nothing listens at {address}: does sshd run there, and on that port?",
                code="unreachable",
            )
    text = str(error) or type(error).__name__
    return errors.LinkDown(f"no connection to {address}: {text}", code="unreachable")


def connection_lost(error: BaseException) -> errors.LinkDown:
    """Turn an error on an established connection into ours."""
    if isinstance(error, asyncssh.ChannelOpenError):
        return errors.LinkDown(
            f"its sshd refuses another session on a connection ({error}): set `MaxSessions 10` in"
            " /etc/ssh/sshd_config there, and reload sshd",
            code="sessions_refused",
        )
    text = str(error) or type(error).__name__
    return errors.LinkDown(f"the connection ended: {text}", code="unreachable")


def host_key_changed(address: HostAddress) -> errors.LinkDown:
    """The error for a server that is not the one that was added, or was reinstalled since."""
    return errors.LinkDown(
        f"{address} presents another host key than the pinned one. If the machine was reinstalled,"
        " remove it and add it again with the new --fingerprint. If not, somebody may intercept"
        " the connection",
        code="host_key_changed",
    )


def login_refused(address: HostAddress) -> errors.LinkDown:
    """The error for a server that does not accept our key."""
    return errors.LinkDown(
        f"{address} refuses our key for user {address.user}: append what"
        f" `spawnctl hosts key` prints to that user's ~/.ssh/authorized_keys",
        code="login_refused",
    )


# ed25519 first: it is short and fast, and every sshd of the last ten years has it.
_PREFERRED = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]


def _algorithms(trusted: asyncssh.SSHKey) -> list[str]:
    name = trusted.get_algorithm()
    return ["rsa-sha2-512", "rsa-sha2-256"] if name == "ssh-rsa" else [name]


def _key_line(key: asyncssh.SSHKey) -> str:
    algorithm, data = key.export_public_key().decode().split()[:2]
    return f"{algorithm} {data}"
