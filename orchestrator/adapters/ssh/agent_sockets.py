"""The agent sockets that a link keeps on its host: one for each sandbox. Link (link.py) owns them.

sshd binds each socket and tells us of every connection to it. So a connection belongs to a sandbox
before its first byte. It goes on to the socket that the agents' process has for the same sandbox on
this machine. A new SSH connection gets all sockets again as soon as the link is up: agents retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh.forwarding import Carrier, LinkTarget, splice
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool import agent_sockets
from orchestrator.slim import structlog

_STREAMS_SCARCE = 500  # from here on, each sandbox gets few
_FEW = 4
_SHARED_STREAMS_MAX = 250  # of all sandboxes without a socket of their own
_REFUSALS_MAX = 100  # then the socket rests: refusing costs us and the host's sshd more than asking
_REST_S = 5.0
# Moves sockets from their drafts into place. $1: the agent folder, $2: the start of the drafts'
# names. Reads a draft and a folder, both below the agent folder, from each line.
_PLACE = """
set -e
cd "$1"
chmod 0666 "$2"-*.new
while read -r draft place; do
  [ -d "$place" ] || mkdir -m 0755 "$place"
  mv -f "$draft" "$place/agent.sock"
done
"""
# Removes folders of sandboxes. $1: the agent folder. Reads one id from each line.
_REMOVE = """
cd "$1/sandboxes" || exit 0
while read -r place; do rm -rf -- "./$place"; done
"""
_FORWARDING_FORBIDDEN = (
    "its sshd does not allow socket forwarding: set `AllowStreamLocalForwarding yes` (and remove"
    " `DisableForwarding`) in /etc/ssh/sshd_config there, and reload sshd"
)
_SHARED = SandboxId("")  # stands for the sandboxes that share a socket

log = structlog.get_logger()


@dataclass(kw_only=True)
class _Use:
    """What one sandbox holds of the link, and how often it was refused more."""

    streams: int = 0
    refusals: int = 0  # since its socket rested last
    rests_until: float = 0.0  # of the event loop's clock
    rate: agent_sockets.ConnectionRate = field(default_factory=agent_sockets.ConnectionRate)


class AgentSockets:
    """The agent sockets of one host. Use it from the loop of the links only."""

    def __init__(self, target: LinkTarget) -> None:
        self.streams = 0  # that are open
        self.refusals: Counter[str] = Counter()  # by reason
        self.wanted: set[SandboxId] = set()  # have a socket, or get one as soon as possible
        self.is_behind = False  # something has failed, or rests: it has to be tried again
        self._target = target
        self._is_told = False  # whether `wanted` is complete: a folder of another sandbox is stale
        self._uses: defaultdict[SandboxId, _Use] = defaultdict(_Use)

    async def prepare(self, carrier: Carrier, present: Collection[str]) -> None:
        """Bind the shared socket on a new connection. This shows whether its sshd forwards at all.

        `present`: the names of the folders that there are. Raises errors.HostUnfit,
        errors.LinkDown.
        """
        carrier.present = [SandboxId(name) for name in present if ids.is_id(name, "sbx")]
        async with carrier.binding:
            await self._bind(carrier, [_SHARED])

    def resume(self, carrier: Carrier) -> None:
        """Bind all other sockets on this connection. Doesn't wait for it."""
        is_busy = carrier.syncing is not None and not carrier.syncing.done()
        if not is_busy and self._differs(carrier):
            carrier.syncing = asyncio.create_task(self._try_sync(carrier))

    async def offer(self, sandbox_id: SandboxId, carrier: Carrier | None) -> None:
        """Make the folder and the socket of a sandbox that is about to start.

        Raises errors.HostUnfit, errors.LinkDown, errors.TermOver.
        """
        self.wanted.add(sandbox_id)
        if carrier is None:
            raise errors.LinkDown(f"no link to {self._target.name}")
        await self._sync(carrier)

    async def withdraw(self, sandbox_id: SandboxId, carrier: Carrier | None) -> None:
        """Remove the socket of a sandbox that is gone. Without a connection the next one does."""
        self.wanted.discard(sandbox_id)
        self._uses.pop(sandbox_id, None)
        if carrier is not None:
            async with carrier.binding:
                self._target.check_term()
                self._close(carrier, sandbox_id)
                await _remove(carrier, self._target, [sandbox_id])

    def follow(
        self,
        living: Collection[SandboxId],
        ended: Collection[SandboxId],
        carrier: Carrier | None,
    ) -> None:
        """Have sockets for these sandboxes, and none for those that ended. Doesn't wait for it."""
        self.wanted.update(living)
        self.wanted.difference_update(ended)
        self._is_told = True
        for sandbox_id in self._uses.keys() - self.wanted - {_SHARED}:
            del self._uses[sandbox_id]  # also those that came back by a late connection
        if carrier is not None:
            self.resume(carrier)

    def _differs(self, carrier: Carrier) -> bool:
        return bool(self._missing(carrier) or self._surplus(carrier))

    def _surplus(self, carrier: Carrier) -> Sequence[SandboxId]:
        """Sandboxes that are gone, with a socket or at least a folder."""
        folders = carrier.present if self._is_told else ()
        return sorted({*carrier.listeners, *folders} - self.wanted - {_SHARED})

    def _missing(self, carrier: Carrier) -> Sequence[SandboxId]:
        now = asyncio.get_running_loop().time()
        return [
            sandbox_id
            for sandbox_id in sorted(self.wanted - carrier.listeners.keys())
            if sandbox_id not in self._uses or self._uses[sandbox_id].rests_until <= now
        ]

    async def _try_sync(self, carrier: Carrier) -> None:
        """Sync, and leave what fails to the next call."""
        try:
            await self._sync(carrier)
        except errors.Temporary as error:
            log.warning("agent_sockets_failed", host=self._target.name, error=str(error))

    async def _sync(self, carrier: Carrier) -> None:
        """Make the sockets on this connection equal to the wanted ones."""
        self.is_behind = True
        async with carrier.binding:
            missing = self._missing(carrier)
            if missing:
                await self._bind(carrier, missing)
            surplus = self._surplus(carrier)
            self._target.check_term()
            for sandbox_id in surplus:
                self._close(carrier, sandbox_id)
            if surplus:
                await _remove(carrier, self._target, surplus)
            if self._is_told:
                carrier.present = ()
            self.is_behind = bool(self.wanted - carrier.listeners.keys())

    async def _bind(self, carrier: Carrier, sandbox_ids: Sequence[SandboxId]) -> None:
        """Bind sockets under draft names and move them into place.

        So an agent finds either the earlier socket or this one: never none, and never one with the
        permissions that sshd sets.
        """
        self._target.check_term()
        prefix = f"{agent_sockets.SANDBOXES}/{secrets.token_hex(4)}"
        drafts = [f"{prefix}-{number}.new" for number in range(len(sandbox_ids))]
        listening = [
            self._listen(carrier, sandbox_id, f"{self._target.agent_folder}/{draft}")
            for sandbox_id, draft in zip(sandbox_ids, drafts, strict=True)
        ]
        try:
            async with asyncio.timeout(ssh.COMMAND_TIMEOUT_S):
                outcomes = await asyncio.gather(*listening, return_exceptions=True)
        except TimeoutError as error:
            raise errors.LinkDown(f"{self._target.name} binds no agent socket") from error
        bound = {
            sandbox_id: (draft, outcome)
            for sandbox_id, draft, outcome in zip(sandbox_ids, drafts, outcomes, strict=True)
            if isinstance(outcome, asyncssh.SSHListener)
        }
        if bound:
            try:
                drafts_of = {key: draft for key, (draft, _) in bound.items()}
                await self._place(carrier, prefix, drafts_of)
            except errors.Temporary:
                for _, listener in bound.values():
                    listener.close()
                raise
        carrier.listeners.update({key: listener for key, (_, listener) in bound.items()})
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise _bind_error(carrier, outcome) from outcome

    async def _place(self, carrier: Carrier, prefix: str, drafts: Mapping[SandboxId, str]) -> None:
        """Move sockets from their drafts into place. Raises errors.HostUnfit, errors.LinkDown."""
        folder = self._target.agent_folder
        lines = (
            f"{draft} {f'{agent_sockets.SANDBOXES}/{sandbox_id}' if sandbox_id else '.'}\n"
            for sandbox_id, draft in drafts.items()
        )
        argv = ("sh", "-c", _PLACE, "sh", folder, prefix)
        result = await ssh.run(carrier.connection, argv, stdin="".join(lines))
        if result.code != 0:
            raise errors.HostUnfit(
                f"the agent sockets can't be placed in {folder}: {result.output[:200]}"
            )

    async def _listen(
        self, carrier: Carrier, sandbox_id: SandboxId, draft: str
    ) -> asyncssh.SSHListener:
        loop = asyncio.get_running_loop()

        def accept() -> Any:
            """Called for each connection, before it is accepted."""
            is_early = sandbox_id != _SHARED and self._uses[sandbox_id].rate.take(loop.time())
            reason = "connection_rate" if is_early else self._shortage(sandbox_id)
            if reason:
                self._refuse(carrier, sandbox_id, reason)
                raise asyncssh.ChannelOpenError(
                    asyncssh.OPEN_RESOURCE_SHORTAGE, "this sandbox connects too often"
                )
            return lambda reader, writer: self._forward(carrier, sandbox_id, reader, writer)

        return await carrier.connection.start_unix_server(accept, draft)

    def _shortage(self, sandbox_id: SandboxId) -> str:
        """Why the sandbox may have no further stream; "" if it may."""
        if self.streams + len(self.wanted) >= agent_sockets.LINK_DESCRIPTORS_MAX:
            return "link_full"
        if sandbox_id == _SHARED:
            limit = _SHARED_STREAMS_MAX
        else:
            limit = agent_sockets.CONNECTIONS_MAX if self.streams < _STREAMS_SCARCE else _FEW
        use = self._uses.get(sandbox_id)
        return "" if use is None or use.streams < limit else "connections"

    def _refuse(self, carrier: Carrier, sandbox_id: SandboxId, reason: str) -> None:
        """Count a refusal. A sandbox that goes on and on finds nobody at its socket for a while."""
        self.refusals[reason] += 1
        use = self._uses[sandbox_id]
        use.refusals += 1
        if use.refusals < _REFUSALS_MAX or sandbox_id == _SHARED:
            return
        loop = asyncio.get_running_loop()
        use.refusals, use.rests_until = 0, loop.time() + _REST_S
        log.warning("agent_socket_rests", host=self._target.name, sandbox=sandbox_id)
        self._close(carrier, sandbox_id)
        self.is_behind = True

    def _close(self, carrier: Carrier, sandbox_id: SandboxId) -> None:
        listener = carrier.listeners.pop(sandbox_id, None)
        if listener is not None:
            listener.close()

    async def _forward(
        self, carrier: Carrier, sandbox_id: SandboxId, reader: Any, writer: Any
    ) -> None:
        if reason := self._shortage(sandbox_id):  # many were accepted since
            self.refusals[reason] += 1
            writer.close()
            return
        with carrier.hold(), self._count(sandbox_id):
            try:
                local = await _connect(self._upstream_of(sandbox_id))
            except OSError:  # the process `agents` is restarting: agents retry
                writer.close()
                return
            await splice((reader, writer), local)

    def _upstream_of(self, sandbox_id: SandboxId) -> Path:
        folder = self._target.local_agent_folder
        if sandbox_id == _SHARED:
            return folder / agent_sockets.SOCKET
        return Path(agent_sockets.folder_of(str(folder), sandbox_id)) / agent_sockets.SOCKET

    @contextlib.contextmanager
    def _count(self, sandbox_id: SandboxId) -> Iterator[None]:
        use = self._uses[sandbox_id]
        use.streams += 1
        self.streams += 1
        try:
            yield
        finally:
            use.streams -= 1
            self.streams -= 1


def _bind_error(carrier: Carrier, error: BaseException) -> errors.Temporary:
    if not isinstance(error, asyncssh.ChannelListenError) or carrier.connection.is_closed():
        return ssh.connection_lost(error)
    return errors.HostUnfit(_FORWARDING_FORBIDDEN, code="forwarding_refused")


async def _remove(carrier: Carrier, target: LinkTarget, sandbox_ids: Sequence[SandboxId]) -> None:
    """Remove folders. What stays, because the connection ends, the next connection removes."""
    if not sandbox_ids:
        return
    argv = ("sh", "-c", _REMOVE, "sh", target.agent_folder)
    try:
        lines = "".join(f"{sandbox_id}\n" for sandbox_id in sandbox_ids)
        await ssh.run(carrier.connection, argv, stdin=lines)
    except errors.Temporary as error:
        log.info("agent_folders_kept", host=target.name, error=str(error))


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a socket of this machine, however long its path is: the kernel takes 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
