"""One host's link: an SSH connection that is made, watched, and replaced when it fails.

Runs in the event loop of hosts/fleet.py. forwarding.py and agent_sockets.py carry the streams over
the connection.

A connection that falls silent is not cut. The link tries a second one beside it. If that succeeds
first, new streams go over it, while the streams of the first one may still finish there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field

import asyncssh

from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh.agent_sockets import AgentSockets
from orchestrator.adapters.ssh.forwarding import Carrier, Forwarder, LinkTarget
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.slim import structlog

_HEARTBEAT_INTERVAL_S = 2.0
_HEARTBEAT_TIMEOUT_S = 3.0
_BACKOFF_MAX_S = 30.0
_BACKOFF_FIRST_S = 0.5
_SUCCESSOR_RETRY_S = 1.0  # between attempts to replace a silent connection
_GATE_S = 1.0
_STABLE_S = 30.0  # a connection that lasted this long resets the backoff
# What our connection needs on the host. $1: the agent folder. Prints our user id and our address,
# which `parse_login` reads, then the names of the folders of sandboxes. Nobody but root can list
# these folders. Removes the draft sockets that an earlier connection left behind.
_SET_UP = """
set -e
if [ "$(id -u)" = 0 ]; then install -d -m 0755 "$1"
else sudo -n install -d -m 0755 -o "$(id -un)" "$1"; fi
install -d -m 0711 "$1/sandboxes"
rm -f "$1"/*.new "$1"/sandboxes/*.new
echo "$(id -u) ${SSH_CONNECTION%% *}"
ls "$1/sandboxes"
"""

_LOGIN = re.compile(r"(\d{1,10})(?: (\S{1,60}))?")

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Login:
    """What a host says of our connection to it."""

    is_root: bool  # whether we log in as root there
    our_address: str  # our IP address as the host sees it, without a zone; "" if it doesn't say


def parse_login(text: str) -> Login:
    """Read what _SET_UP prints. Raises errors.HostUnfit (shell_interferes)."""
    match = _LOGIN.fullmatch(text.strip())
    if match is None:
        raise errors.HostUnfit(
            f"its shell answers {text.strip()[:80]!r} instead of a user id and an address",
            code="shell_interferes",
        )
    user_id, address = match.groups()
    return Login(is_root=int(user_id) == 0, our_address=_plain_address(address or ""))


def _plain_address(text: str) -> str:
    """The IP address in its usual form: no zone, and IPv4 even if it came mapped into IPv6."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


@dataclass(kw_only=True)
class LinkView:
    """The state of a link. The link writes it, any thread reads it."""

    up: bool = False
    reason: str = "connecting"
    code: str = ""
    since: float = field(default_factory=time.monotonic)  # of `up`
    has_outcome: bool = False  # whether any attempt has succeeded or failed yet
    rtt_s: float | None = None
    connects: int = 0  # connections made so far
    our_address: str = ""  # our address as the host sees it


class Link:
    """The link to one host. `run_forever` runs until it is cancelled; `view` is its state."""

    def __init__(
        self, target: LinkTarget, gate: asyncio.Semaphore, changed: Callable[[], None]
    ) -> None:
        """`gate` bounds how many links begin to connect at once. The link calls `changed` when
        `view.up` or its reason changes."""
        self.target = target
        self.view = LinkView()
        self._gate = gate
        self._changed = changed
        self._forwarder = Forwarder(target)
        self.sockets = AgentSockets(target)

    @property
    def channels(self) -> int:
        """The number of streams that are open."""
        return self._forwarder.channels + self.sockets.streams

    @property
    def refusals(self) -> Mapping[str, int]:
        """How many connections of sandboxes were refused so far, by reason."""
        return self.sockets.refusals

    async def run_forever(self) -> None:
        """Connect, stay connected, and reconnect with a full-jitter backoff."""
        server = await self._forwarder.listen()
        failures = 0
        try:
            while True:
                started_at = time.monotonic()
                try:
                    carrier: Carrier | None = await self._connect()
                    while carrier is not None:
                        carrier = await self._serve(carrier)
                except errors.TermOver:
                    pass  # it says nothing about the host, and our process is about to end
                except errors.SpawnError as error:
                    self._mark_down(error)
                failures = 0 if time.monotonic() - started_at > _STABLE_S else failures + 1
                delay_max_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(0, delay_max_s))  # noqa: S311 - jitter, no secret
        finally:
            # 1. Accept no new streams. 2. End the connections, and the streams with them.
            # 3. Remove the socket: without it, clients fail at once instead of waiting.
            server.close()
            self._forwarder.abort()
            self._forwarder.unlink_socket()

    async def run_command(self, argv: tuple[str, ...], timeout_s: float) -> ssh.CommandResult:
        """Run a command as root on the host. Raises errors.LinkDown, errors.Temporary."""
        self.target.check_term()
        carrier = self._forwarder.carrier
        if carrier is None:
            raise errors.LinkDown(f"no link to {self.target.name}: {self.view.reason}")
        root_argv = argv if carrier.is_root else ("sudo", "-n", *argv)
        with carrier.hold():
            return await ssh.run(carrier.connection, root_argv, timeout_s=timeout_s)

    async def offer_socket(self, sandbox_id: SandboxId) -> None:
        """Make the agent socket of a sandbox. Raises errors.LinkDown, errors.HostUnfit."""
        await self.sockets.offer(sandbox_id, self._forwarder.carrier)

    async def withdraw_socket(self, sandbox_id: SandboxId) -> None:
        """Remove the agent socket of a sandbox, now or with the next connection."""
        await self.sockets.withdraw(sandbox_id, self._forwarder.carrier)

    def follow_sandboxes(self, living: Collection[SandboxId], ended: Collection[SandboxId]) -> None:
        """Have agent sockets for these sandboxes, and none for those. Doesn't wait for it."""
        self.sockets.follow(living, ended, self._forwarder.carrier)

    def retry_sockets(self) -> None:
        """Try the agent sockets again that failed or rested. Doesn't wait for it."""
        if self.sockets.is_behind and self._forwarder.carrier is not None:
            self.sockets.resume(self._forwarder.carrier)

    def fail(self, reason: str) -> None:
        """Count the host as unreachable: a bug has ended `run_forever`."""
        self._mark_down(errors.LinkDown(reason, code="link_crashed"))

    # --- connecting -------------------------------------------------------------------------------

    async def _connect(self) -> Carrier:
        """Make a connection and set up what it needs on the host.

        Raises errors.LinkDown, errors.HostUnfit.
        """
        target = self.target
        target.check_term()
        async with _held_briefly(self._gate):
            connection = await ssh.connect(target.address, key=target.key, pinned=target.pinned)
        try:
            carrier = await self._set_up(connection)
        except BaseException:
            connection.abort()
            raise
        self.view.connects += 1
        return carrier

    async def _set_up(self, connection: asyncssh.SSHClientConnection) -> Carrier:
        folder = self.target.agent_folder
        result = await ssh.run(connection, ("sh", "-c", _SET_UP, "sh", folder))
        if result.code != 0:
            raise errors.HostUnfit(
                f"user {self.target.address.user} can't make {folder} there"
                f" ({result.output[:200]}): log in as root, or give that user passwordless sudo",
                code="not_root",
            )
        facts, *folders = result.stdout.strip().split("\n")
        login = parse_login(facts)
        self.view.our_address = login.our_address
        carrier = Carrier(connection=connection, is_root=login.is_root)
        await self.sockets.prepare(carrier, folders)
        return carrier

    # --- monitoring -------------------------------------------------------------------------------

    async def _serve(self, carrier: Carrier) -> Carrier | None:
        """Send streams over this connection while it lives.

        Return the connection that replaces it, or None when it has ended without a replacement.
        """
        self._forwarder.carrier = carrier
        self.sockets.resume(carrier)
        try:
            echo = await self._start_echo(carrier)
            closed = asyncio.ensure_future(carrier.connection.wait_closed())
            while not closed.done():
                if await self._check_heartbeat(echo):
                    self._mark_up()
                    await asyncio.wait({closed}, timeout=_HEARTBEAT_INTERVAL_S)
                    continue
                self._mark_down(errors.LinkDown(f"no answer within {_HEARTBEAT_TIMEOUT_S:g} s"))
                successor = await self._await_heartbeat_or_successor(echo)
                if successor is not None:
                    self._forwarder.retire(carrier)
                    return successor
            failure: errors.SpawnError = errors.LinkDown("the host closed the connection")
        except (OSError, asyncssh.Error, asyncio.IncompleteReadError) as error:
            failure = errors.LinkDown(f"the connection ended: {error or type(error).__name__}")
        except errors.HostUnfit as error:
            failure = error
        self._forwarder.carrier = None
        carrier.connection.abort()
        self._mark_down(failure)
        return None

    async def _start_echo(self, carrier: Carrier) -> asyncssh.SSHClientProcess[bytes]:
        """Start the process that echoes our heartbeats. Raises errors.HostUnfit, TimeoutError."""
        echo = await carrier.connection.create_process(
            ssh.marked(("cat",)), encoding=None, stderr=asyncssh.DEVNULL
        )
        async with asyncio.timeout(ssh.COMMAND_TIMEOUT_S):
            await ssh.skip_greeting(echo.stdout)  # no byte of it may pass for an echo
        return echo

    async def _check_heartbeat(self, echo: asyncssh.SSHClientProcess[bytes]) -> bool:
        """Send one byte and await its echo.

        Return False when the echo is late; it may still arrive. Raises when the connection has
        ended.
        """
        sent_at = time.monotonic()
        echo.stdin.write(b".")
        try:
            async with asyncio.timeout(_HEARTBEAT_TIMEOUT_S):
                await echo.stdout.readexactly(1)
        except TimeoutError:
            return False
        self.view.rtt_s = time.monotonic() - sent_at
        return True

    async def _await_heartbeat_or_successor(
        self, echo: asyncssh.SSHClientProcess[bytes]
    ) -> Carrier | None:
        """Wait for the late echo of a silent connection while trying a second connection.

        Return None when the echo arrives first, the new connection when that succeeds first.
        Raises when the silent connection has ended.
        """
        heartbeat = asyncio.ensure_future(echo.stdout.readexactly(1))
        connecting = asyncio.ensure_future(self._connect_until_success())
        recovered = False
        try:
            await asyncio.wait({heartbeat, connecting}, return_when=asyncio.FIRST_COMPLETED)
            recovered = heartbeat.done()
            if recovered:
                heartbeat.result()  # raises when the connection has ended
                return None
            return connecting.result()
        finally:
            for task in (heartbeat, connecting):
                task.cancel()
            _, successor = await asyncio.gather(heartbeat, connecting, return_exceptions=True)
            # Both may finish at once. Then the old connection goes on, and the new one retires.
            if recovered and isinstance(successor, Carrier):
                self._forwarder.retire(successor)

    async def _connect_until_success(self) -> Carrier:
        while True:
            try:
                return await self._connect()
            except errors.SpawnError as error:
                if error.code == "host_key_changed":
                    self._mark_down(error)
                await asyncio.sleep(_SUCCESSOR_RETRY_S)

    def _mark_up(self) -> None:
        view = self.view
        if not view.up:
            log.info("link_up", host=self.target.name, connects=view.connects)
            view.up, view.reason, view.code = True, "", ""
            view.since, view.has_outcome = time.monotonic(), True
            self._changed()

    def _mark_down(self, error: errors.SpawnError) -> None:
        view = self.view
        if view.up or str(error) != view.reason or not view.has_outcome:
            log.warning("link_down", host=self.target.name, code=error.code, error=str(error))
            if view.up or not view.has_outcome:
                view.since = time.monotonic()
            view.up, view.reason, view.code = False, str(error), error.code
            view.has_outcome = True
            self._changed()


@contextlib.asynccontextmanager
async def _held_briefly(gate: asyncio.Semaphore) -> AsyncIterator[None]:
    """Hold the gate during the block, for `_GATE_S` at most.

    A host that answers is connected within that time, and takes CPU. One that is silent takes none,
    and must not keep the others waiting.
    """
    await gate.acquire()
    is_held = True

    def release() -> None:
        nonlocal is_held
        if is_held:
            is_held = False
            gate.release()

    opening = asyncio.get_running_loop().call_later(_GATE_S, release)
    try:
        yield
    finally:
        opening.cancel()
        release()
