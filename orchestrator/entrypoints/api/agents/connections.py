"""The connections of agents: whose they are, and the deadlines of head and body.

agents/server.py gives it to uvicorn, which has a time limit only between two requests.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.domain.ids import SandboxId
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics

# In the state of a request: whose socket it came over, and whether it may not even be made.
SANDBOX, REFUSED = "sandbox_id", "refused"
_HEAD_MAX_BYTES = 64 * 1024  # of what isn't body; as much again as the body, for its framing
_SHARING_MAX = 1000  # connections of all sandboxes without a socket of their own
_CREDENTIALS = struct.Struct("3i")  # process, user, group
KEEP_ALIVE_S = 5  # between two requests; agents make a connection for each


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long a connection may take for each part of a request, in seconds."""

    head_s: float = 5.0  # from the connection, or from the request's first byte
    body_s: float = 60.0  # 20 MiB at 350 KB/s
    refused_s: float = 5.0  # to send the rest of a body that was refused
    unread_s: float = 60.0  # while the other end takes nothing of an answer


def is_our_process(connection: socket.socket) -> bool:
    """Whether a process of our user is at the other end, as the kernel says: see SO_PEERCRED in
    unix(7). Sandboxes have another user."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user_id, _ = _CREDENTIALS.unpack(raw)
    return bool(user_id == os.geteuid())


class Connections:
    """All connections of agents: those to the sockets of sandboxes, and to the shared one.

    At the shared one are our own processes, and sandboxes that were made before each had a socket.
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        deadlines: Deadlines | None = None,
        is_ours: Callable[[socket.socket], bool] = is_our_process,
    ) -> None:
        """`is_ours` tells our own processes at the shared socket from sandboxes."""
        self.metrics = metrics
        self.deadlines = deadlines or Deadlines()
        self.is_ours = is_ours
        self.sharing = 0  # connections of sandboxes to the shared socket

    def shared(self, **options: Any) -> asyncio.Protocol:
        """What uvicorn calls for each connection to the shared socket."""
        return SharedConnection(self, lambda: None, **options)

    def of_sandbox(
        self, server: uvicorn.Server, sandbox_id: SandboxId, ended: Callable[[], None]
    ) -> asyncio.Protocol:
        """What serves a connection to the socket of a sandbox. It ends with that server."""
        return AgentConnection(
            self,
            ended,
            config=server.config,
            server_state=server.server_state,
            app_state={SANDBOX: sandbox_id},
        )


class AgentConnection(HttpToolsProtocol):
    """One connection. It is closed when it exceeds a deadline, and after a refusal: who has to
    connect again makes only so many requests a second."""

    def __init__(self, connections: Connections, ended: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._ended = ended
        self._deadlines = connections.deadlines
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._has_head = False
        self._has_whole_request = True
        self._bytes = self._body_bytes = 0  # of this request, so far

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connections.metrics.agent_connections.inc()
        self._expect("slow_head", self._deadlines.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self.resume_writing()
        self._connections.metrics.agent_connections.dec()
        super().connection_lost(exc)
        self._ended()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_whole_request:
            return
        self._bytes += len(data)
        if self._bytes > _HEAD_MAX_BYTES + 2 * self._body_bytes:
            self._close("large_framing" if self._has_head else "large_head")

    def send_400_response(self, msg: str) -> None:
        self._connections.metrics.agent_refusals.labels("malformed").inc()
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # uvicorn would parse and keep all requests that come in one piece, which are thousands.
            raise ValueError("the request before this one is not answered yet")
        super().on_message_begin()
        self._has_whole_request = False
        self._expect("slow_head", self._deadlines.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # else it is a trailer, which uvicorn would take for a header
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._has_head = True
        self._expect("slow_body", self._deadlines.body_s)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._has_whole_request = True
        self._has_head, self._bytes, self._body_bytes = False, 0, 0
        self._cancel()
        if self.cycle.response_complete:
            self._expect("slow_head", self._deadlines.head_s)  # of the next request
            self._close_if_refused()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_whole_request:
            self._close_if_refused()
        elif not self.transport.is_closing():
            # Refused before its body was read. Closing now could destroy the answer on its way.
            self._unset_keepalive_if_required()
            self._expect("slow_body", self._deadlines.refused_s)

    def _close_if_refused(self) -> None:
        if REFUSED in self.cycle.scope["state"]:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._deadlines.unread_s, self._close, "slow_reader")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _expect(self, reason: str, within_s: float) -> None:
        """Close the connection for this reason unless `_cancel` comes in time."""
        self._cancel()
        self._deadline = self.loop.call_later(within_s, self._close, reason)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self, reason: str) -> None:
        if not self.transport.is_closing():
            self._connections.metrics.agent_refusals.labels(reason).inc()
            self.transport.abort()


class SharedConnection(AgentConnection):
    """A connection to the shared socket. Sandboxes have at most _SHARING_MAX of them together."""

    _is_counted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connections = self._connections
        if connections.is_ours(transport.get_extra_info("socket")):
            return
        if connections.sharing >= _SHARING_MAX:
            self._close("connections")
            return
        self._is_counted = True
        connections.sharing += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_counted:
            self._connections.sharing -= 1
        super().connection_lost(exc)
