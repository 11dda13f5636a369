"""One host's link: a connection for life, the Docker socket here, the agent socket there.

Lives in the event loop of hosts/fleet.py. The local socket is bound once and outlives every
connection; what connects to it is carried by whichever connection is the present one. A connection
that falls silent isn't cut: a second one is tried beside it, and takes over what is new, while what
the first one carries may still finish on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from orchestrator.adapters.ssh import connection as ssh
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.slim import structlog

DOCKER_SOCKET = "/var/run/docker.sock"
AGENT_SOCKET = "agent.sock"
_BEAT_EVERY_S = 2.0
_BEAT_WITHIN_S = 3.0
_BACKOFF_MAX_S = 30.0
_BACKOFF_FIRST_S = 0.5
_SECOND_TRY_S = 1.0  # between attempts beside a connection that is silent
_STEADY_S = 30.0  # a connection that lasted so long was a good one
_CHUNK_BYTES = 64 * 1024
_FORBIDDEN = (
    "its sshd forbids to forward sockets: set `AllowStreamLocalForwarding yes` (and remove"
    " `DisableForwarding`) in /etc/ssh/sshd_config there, and reload sshd"
)
# What our connection needs over there. $1: the agent folder. Prints who we are and where we come
# from; what an earlier connection left half-made goes.
_SET_UP = """
set -e
if [ "$(id -u)" = 0 ]; then install -d -m 0755 "$1"
else sudo -n install -d -m 0755 -o "$(id -un)" "$1"; fi
rm -f "$1"/*.new
echo "$(id -u) ${SSH_CONNECTION%% *}"
"""

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class LinkTarget:
    """Where a link goes, and what it connects."""

    name: str  # of the host, for logs
    address: HostAddress
    pinned: str  # the host key's line
    key: Path  # our private key
    local_socket: Path  # the host's Docker, here: 0600 in a folder of mode 0700
    agent_socket: Path  # of our agent app, on this machine
    agent_folder: str  # on the host: where agents look for it


@dataclass(kw_only=True)
class LinkView:
    """What a link looks like from outside. Written by the link, read from any thread."""

    up: bool = False
    reason: str = "connecting"
    code: str = ""
    since: float = field(default_factory=time.time)  # of `up`, seconds since 1970
    tried: bool = False  # whether there has been any outcome yet
    rtt_s: float | None = None
    channels: int = 0
    connects: int = 0  # connections that were made so far
    seen_from: str = ""  # our address as the host sees it


class Stream(Protocol):
    """The half of asyncio's and asyncssh's writers that a pump needs."""

    def write(self, data: bytes) -> Any: ...
    async def drain(self) -> Any: ...
    def write_eof(self) -> Any: ...
    def can_write_eof(self) -> bool: ...
    def close(self) -> Any: ...


@dataclass(eq=False, kw_only=True)
class _Carrier:
    """One connection and how much it carries."""

    connection: asyncssh.SSHClientConnection
    root: bool
    open: int = 0
    retired: bool = False
    # Connections to Docker on which everything that was asked is answered: kept for the next call.
    answered: set[asyncio.StreamWriter] = field(default_factory=set)

    def retire(self) -> None:
        """Take nothing new, and end once what is carried has ended. A next call on a connection
        that is kept would wait for an answer that may never come: those are closed."""
        self.retired = True
        for writer in self.answered:
            writer.close()
        self.close_if_idle()

    def close_if_idle(self) -> None:
        if self.retired and self.open == 0:
            self.connection.close()

    @contextlib.contextmanager
    def carrying(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
            self.close_if_idle()


class Link:
    """One host's. `live` runs until it is cancelled; `view` says how it is."""

    def __init__(
        self, target: LinkTarget, gate: asyncio.Semaphore, changed: Callable[[], None]
    ) -> None:
        """`gate` bounds how many links connect at once; `changed` is called when `view.up` or its
        reason did."""
        self.target = target
        self.view = LinkView()
        self._gate = gate
        self._changed = changed
        self._carrier: _Carrier | None = None
        self._retired: set[_Carrier] = set()

    async def live(self) -> None:
        """Connect, keep connected, and connect again, with full jitter in between."""
        server = await self._listen()
        failures = 0
        try:
            while True:
                began = time.monotonic()
                try:
                    present: _Carrier | None = await self._connect()
                    while present is not None:
                        present = await self._carry(present)
                except errors.SpawnError as error:
                    self._down(error)
                failures = 0 if time.monotonic() - began > _STEADY_S else failures + 1
                most = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(0, most))  # noqa: S311 - jitter, no secret
        finally:
            # 1. Nobody new; 2. what is carried ends with its connection; 3. the file, which
            #    says to those who connect that nobody is there.
            server.close()
            for one in (self._carrier, *self._retired):
                if one is not None:
                    one.connection.abort()
            self.target.local_socket.unlink(missing_ok=True)

    async def run(self, argv: tuple[str, ...], within_s: float) -> ssh.Ran:
        """Run a command as root. Raises LinkDown."""
        carrier = self._carrier
        if carrier is None:
            raise errors.LinkDown(f"no link to {self.target.name}: {self.view.reason}")
        words = argv if carrier.root else ("sudo", "-n", *argv)
        with carrier.carrying():
            return await ssh.run(carrier.connection, words, within_s=within_s)

    # --- connecting -------------------------------------------------------------------------------

    async def _connect(self) -> _Carrier:
        """A connection that has all that it needs over there. Raises LinkDown, HostUnfit."""
        target = self.target
        async with self._gate:
            connection = await ssh.connect(target.address, key=target.key, pinned=target.pinned)
        try:
            carrier = await self._set_up(connection)
        except BaseException:
            connection.abort()
            raise
        self.view.connects += 1
        return carrier

    async def _set_up(self, connection: asyncssh.SSHClientConnection) -> _Carrier:
        folder = self.target.agent_folder
        ran = await ssh.run(connection, ("sh", "-c", _SET_UP, "sh", folder))
        if ran.code != 0:
            raise errors.HostUnfit(
                f"user {self.target.address.user} can't make {folder} there ({ran.output[:200]}):"
                " log in as root, or give that user passwordless sudo",
                code="not_root",
            )
        user_id, _, self.view.seen_from = ran.stdout.strip().partition(" ")
        carrier = _Carrier(connection=connection, root=user_id == "0")
        await self._offer_agent_socket(carrier)
        return carrier

    async def _offer_agent_socket(self, carrier: _Carrier) -> None:
        """Bind beside and move over: whoever connects finds the last one or this one, never none
        and never one with the permissions that sshd gives."""
        folder = self.target.agent_folder
        draft = f"{folder}/{secrets.token_hex(4)}.new"
        try:
            await carrier.connection.start_unix_server(
                lambda: lambda reader, writer: self._to_agent_app(carrier, reader, writer), draft
            )
        except asyncssh.ChannelListenError as error:
            raise errors.HostUnfit(_FORBIDDEN, code="forwarding_refused") from error
        place = f"chmod 0666 '{draft}' && mv -f '{draft}' '{folder}/{AGENT_SOCKET}'"
        ran = await ssh.run(carrier.connection, ("sh", "-c", place))
        if ran.code != 0:
            raise errors.HostUnfit(f"the agent socket can't be placed in {folder}: {ran.output}")

    # --- carrying ---------------------------------------------------------------------------------

    async def _carry(self, carrier: _Carrier) -> _Carrier | None:
        """Serve by this connection until it ends (None), or until another one has taken over."""
        self._carrier = carrier
        try:
            heart = await carrier.connection.create_process("cat", encoding=None)
            closed = asyncio.ensure_future(carrier.connection.wait_closed())
            while not closed.done():
                if await self._beats(heart):
                    self._up()
                    await asyncio.wait({closed}, timeout=_BEAT_EVERY_S)
                    continue
                self._down(errors.LinkDown(f"no answer within {_BEAT_WITHIN_S:g} s"))
                successor = await self._second_try(heart)
                if successor is not None:
                    self._retire(carrier)
                    return successor
            why = "the host closed the connection"
        except (OSError, asyncssh.Error, asyncio.IncompleteReadError) as error:
            why = f"the connection ended: {error or type(error).__name__}"
        self._carrier = None
        carrier.connection.abort()
        self._down(errors.LinkDown(why))
        return None

    async def _beats(self, heart: asyncssh.SSHClientProcess[bytes]) -> bool:
        """One byte there and back. False when it doesn't come in time; it still may. Raises when
        the connection has ended."""
        began = time.monotonic()
        heart.stdin.write(b".")
        try:
            async with asyncio.timeout(_BEAT_WITHIN_S):
                await heart.stdout.readexactly(1)
        except TimeoutError:
            return False
        self.view.rtt_s = time.monotonic() - began
        return True

    async def _second_try(self, heart: asyncssh.SSHClientProcess[bytes]) -> _Carrier | None:
        """Wait for the late beat of a silent connection and try another one beside it. Whichever
        comes first: None is the beat."""
        late = asyncio.ensure_future(heart.stdout.readexactly(1))
        another = asyncio.ensure_future(self._connect_eventually())
        beat = False
        try:
            await asyncio.wait({late, another}, return_when=asyncio.FIRST_COMPLETED)
            beat = late.done()
            if beat:
                late.result()  # raises when the connection has ended
                return None
            return another.result()
        finally:
            for task in (late, another):
                task.cancel()
            _, made = await asyncio.gather(late, another, return_exceptions=True)
            if beat and isinstance(made, _Carrier):
                self._retire(made)  # both came at once: the old one goes on

    async def _connect_eventually(self) -> _Carrier:
        while True:
            try:
                return await self._connect()
            except errors.SpawnError as error:
                if error.code == "host_key_changed":
                    self._down(error)
                await asyncio.sleep(_SECOND_TRY_S)

    def _retire(self, carrier: _Carrier) -> None:
        self._retired = {one for one in self._retired if not one.connection.is_closed()}
        self._retired.add(carrier)
        carrier.retire()

    # --- forwarding -------------------------------------------------------------------------------

    async def _listen(self) -> asyncio.AbstractServer:
        path = self.target.local_socket
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        path.unlink(missing_ok=True)  # of a process that was killed
        server = await asyncio.start_unix_server(self._to_docker, path, backlog=256)
        path.chmod(0o600)
        return server

    async def _to_docker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrier = self._carrier
        if carrier is None:
            writer.close()
            return
        with carrier.carrying(), self._counted():
            try:
                there = await carrier.connection.open_unix_connection(DOCKER_SOCKET, encoding=None)
            except (OSError, asyncssh.Error) as error:
                log.info("Docker can't be reached", host=self.target.name, error=str(error))
                writer.close()
                return
            try:
                await _splice(
                    (reader, writer),
                    there,
                    asking=lambda: carrier.answered.discard(writer),
                    answering=lambda: carrier.answered.add(writer),
                )
            finally:
                carrier.answered.discard(writer)

    async def _to_agent_app(self, carrier: _Carrier, reader: Any, writer: Any) -> None:
        with carrier.carrying(), self._counted():
            try:
                here = await asyncio.open_unix_connection(self.target.agent_socket)
            except OSError:  # the api is being restarted: agents ask again
                writer.close()
                return
            await _splice(here, (reader, writer))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.view.channels += 1
        try:
            yield
        finally:
            self.view.channels -= 1

    # --- what is said of it -----------------------------------------------------------------------

    def _up(self) -> None:
        view = self.view
        if not view.up:
            log.info("a link is up", host=self.target.name, connects=view.connects)
            view.up, view.reason, view.code = True, "", ""
            view.since, view.tried = time.time(), True
            self._changed()

    def _down(self, error: errors.SpawnError) -> None:
        view = self.view
        if view.up or str(error) != view.reason or not view.tried:
            log.warning("a link is down", host=self.target.name, code=error.code, error=str(error))
            if view.up or not view.tried:
                view.since = time.time()
            view.up, view.reason, view.code, view.tried = False, str(error), error.code, True
            self._changed()


async def _splice(
    one: tuple[Any, Any],
    other: tuple[Any, Any],
    asking: Callable[[], object] = lambda: None,
    answering: Callable[[], object] = lambda: None,
) -> None:
    """Bytes both ways, until both directions have ended or one has broken. `asking` is called for
    each piece from the first to the second, `answering` for each one back."""
    try:
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(_pump(one[0], other[1], asking))
            pumps.create_task(_pump(other[0], one[1], answering))
    except* (OSError, asyncssh.Error):
        pass  # both sides learn of it by the end of their stream
    finally:
        for _, writer in (one, other):
            writer.close()


async def _pump(reader: Any, writer: Stream, passing: Callable[[], object]) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        passing()
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
