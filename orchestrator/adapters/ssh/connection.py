"""SSH as we use it everywhere: our key, pinned host keys, nobody's agent and nobody's config.

The daemon's links, the image push and spawnctl connect through here. Foreign errors come out as
errors.LinkDown, whose message says what to do on which side.
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

from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress

CONNECT_S = 10.0  # until TCP and the key exchange are done
LOGIN_S = 10.0
KEEPALIVE_S = 5  # what the server leaves unanswered three times ends the connection
KEEPALIVE_MISSES = 3
RUN_S = 30.0  # one command over there, unless somebody knows better


@dataclass(frozen=True, kw_only=True)
class HostKey:
    """What a server showed, before anybody trusts it."""

    line: str  # "ssh-ed25519 AAAA...", without a comment: what gets pinned
    fingerprint: str  # "SHA256:...", as `ssh-keygen -l` prints it


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of one command on a host."""

    code: int  # exit status; 255 when a signal ended it
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, for people."""
        return "\n".join(part for part in (self.stdout.strip(), self.stderr.strip()) if part)


def make_key(path: Path, comment: str) -> str:
    """Our key pair at `path`, made when it is missing (0600, folder 0700); the public line, as
    authorized_keys wants it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        draft.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
        draft.replace(path)
    return public_line(path, comment)


def public_line(path: Path, comment: str) -> str:
    """The public half. Raises errors.NotFound when there is no key yet."""
    try:
        key = asyncssh.read_private_key(path)
    except FileNotFoundError as error:
        raise errors.NotFound(f"there is no SSH key at {path}: run `spawnctl up` once") from error
    return f"{_line(key)} {comment}"


async def host_key(address: HostAddress, *, within_s: float = CONNECT_S) -> HostKey:
    """What the server at this address shows now. Raises LinkDown (unreachable)."""
    try:
        async with asyncio.timeout(within_s):
            found = await asyncssh.get_server_host_key(
                address.host, address.port, server_host_key_algs=_PREFERRED, config=None
            )
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise translated(error, address) from error
    if found is None:
        raise errors.LinkDown(f"{address} showed no host key", code="unreachable")
    return HostKey(line=_line(found), fingerprint=found.get_fingerprint())


def fingerprint(line: str) -> str:
    """The fingerprint of a pinned line, as `ssh-keygen -l` prints it."""
    return asyncssh.import_public_key(line).get_fingerprint()


async def connect(address: HostAddress, *, key: Path, pinned: str) -> asyncssh.SSHClientConnection:
    """One connection, logged in. `pinned` is the host key's line; another key is refused.

    Raises LinkDown with code unreachable, host_key_changed or login_refused.
    """
    trusted = asyncssh.import_public_key(pinned)
    try:
        return await asyncssh.connect(
            address.host,
            address.port,
            username=address.user,
            config=None,  # nor ~/.ssh/config, nor its known_hosts, nor an agent
            agent_path=None,
            client_keys=[str(key)],
            known_hosts=([trusted], [], []),
            # A server has several keys, and is to show the one that we know.
            server_host_key_algs=_algorithms(trusted),
            preferred_auth="publickey",
            gss_host=None,
            x509_trusted_certs=None,
            compression_algs=None,
            connect_timeout=CONNECT_S,
            login_timeout=LOGIN_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_MISSES,
        )
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise translated(error, address) from error


@asynccontextmanager
async def connected(
    address: HostAddress, *, key: Path, pinned: str
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """`connect`, closed at the end."""
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
    within_s: float = RUN_S,
) -> Ran:
    """Run one command, its words quoted for the remote shell. Raises LinkDown when the connection
    ends under it or takes no more sessions, Temporary (run_timed_out)."""
    try:
        async with asyncio.timeout(within_s):
            done = await connection.run(shlex.join(argv), input=stdin, errors="replace")
    except TimeoutError as error:
        raise errors.Temporary(
            f"{argv[0]} did not end within {within_s:g} s", code="run_timed_out"
        ) from error
    except (OSError, asyncssh.Error) as error:
        raise ended(error) from error
    code = done.exit_status if done.exit_status is not None else 255
    return Ran(code=code, stdout=str(done.stdout or ""), stderr=str(done.stderr or ""))


def translated(error: BaseException, address: HostAddress) -> errors.LinkDown:
    """Our error for asyncssh's and the system's, with what to do about it."""
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return key_changed(address)
        case asyncssh.PermissionDenied():
            return login_refused(address)
        case asyncssh.KeyExchangeFailed():
            return errors.LinkDown(
                f"{address} has no host key of the pinned kind, or speaks too old an SSH: {error}",
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
                f"nobody listens at {address}: is sshd running there, and on that port?",
                code="unreachable",
            )
    said = str(error) or type(error).__name__
    return errors.LinkDown(f"no connection to {address}: {said}", code="unreachable")


def ended(error: BaseException) -> errors.LinkDown:
    """Our error for what befalls a connection that was made."""
    if isinstance(error, asyncssh.ChannelOpenError):
        return errors.LinkDown(
            f"its sshd refuses another session on a connection ({error}): set `MaxSessions 10` in"
            " /etc/ssh/sshd_config there, and reload sshd",
            code="sessions_refused",
        )
    said = str(error) or type(error).__name__
    return errors.LinkDown(f"the connection ended: {said}", code="unreachable")


def key_changed(address: HostAddress) -> errors.LinkDown:
    """It is not the machine that was added, or not as it was then."""
    return errors.LinkDown(
        f"{address} shows another host key than the one that was pinned. If the machine was"
        " reinstalled, remove it and add it again with the new --fingerprint; if not,"
        " somebody stands between",
        code="host_key_changed",
    )


def login_refused(address: HostAddress) -> errors.LinkDown:
    """It doesn't know our key."""
    return errors.LinkDown(
        f"{address} refuses our key for user {address.user}: append what"
        f" `spawnctl hosts key` prints to that user's ~/.ssh/authorized_keys",
        code="login_refused",
    )


# ed25519 first: short, fast, and what every sshd of the last ten years has.
_PREFERRED = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]


def _algorithms(trusted: asyncssh.SSHKey) -> list[str]:
    name = trusted.get_algorithm()
    return ["rsa-sha2-512", "rsa-sha2-256"] if name == "ssh-rsa" else [name]


def _line(key: asyncssh.SSHKey) -> str:
    algorithm, data = key.export_public_key().decode().split()[:2]
    return f"{algorithm} {data}"
