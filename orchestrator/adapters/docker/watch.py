"""The containers of one host, kept up to date by Docker's event stream.

The watch lists the containers once per connection and then follows the events. It runs in the event
loop of hosts/fleet.py, on a local socket: the engine's own, or one that a link forwards.

All hosts share that loop. So what one of them sends is taken in turns, each with a bound and a
pause after it; what a host sends faster waits in its own socket.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import httpx2

from orchestrator.adapters.docker import answers
from orchestrator.adapters.docker.flags import INSTANCE_LABEL
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.sandbox_diagnosis import Container

_PING_INTERVAL_S = 5.0
_PING_TIMEOUT_S = 5.0
_LIST_TIMEOUT_S = 30.0  # for the whole list of containers
_RETRY_MAX_S = 1.0
_ITEMS_PER_TURN = 50  # of a list: others run in between
_ODD_RETRY_S = (5.0, 10.0)  # after an answer that we can't read: the next one will be like it
_CHUNK_BYTES = 64 * 1024
# What one host may send of its events. An event takes about 1 KiB.
EVENTS_BYTES_PER_S = 1024**2
_TURN_MIN_BYTES = 1024  # what a turn counts at least
_ENDS = ("die", "destroy")
_ACTIONS = ("create", "start", *_ENDS)


@dataclass(kw_only=True)
class DockerView:
    """The state of a host's Docker. The watch writes it, any thread reads it.

    The watch replaces each field as a whole, so readers need no lock.
    """

    up: bool = False
    reason: str = "not asked yet"
    since: float = field(default_factory=time.monotonic)  # of `up`
    has_outcome: bool = False  # whether any attempt has succeeded or failed yet
    containers: Sequence[Container] | None = None  # None: unknown at the moment


class DockerWatch:
    """The watch over one host. `run_forever` runs until it is cancelled."""

    def __init__(
        self,
        socket_path: str,
        instance: str,
        reach_changed: Callable[[], None],
        containers_changed: Callable[[Sequence[SandboxId]], None],
    ) -> None:
        """The watch starts paused. It calls one of the two after each change of `view`, the second
        one with the sandboxes whose containers have ended."""
        self.view = DockerView()
        self._socket_usable = asyncio.Event()
        self._following: asyncio.Task[bool] | None = None
        self._path = socket_path
        self._labels = [f"{INSTANCE_LABEL}={instance}"]
        self._reach_changed = reach_changed
        self._containers_changed = containers_changed
        self._containers: dict[str, Container] = {}

    def resume(self) -> None:
        """Connect: the socket leads to Docker."""
        self._socket_usable.set()

    def pause(self) -> None:
        """Drop all connections: the link is down or new, so these may never be answered."""
        self._socket_usable.clear()
        if self._following is not None:
            self._following.cancel()

    async def run_forever(self) -> None:
        while True:
            await self._socket_usable.wait()
            self._following = asyncio.ensure_future(self._connect_and_follow())
            try:
                await asyncio.wait({self._following})
            finally:
                self._following.cancel()
            if self._following.cancelled():
                self._mark_down("its link is down")
            else:
                is_odd = self._following.result()
                pause = _ODD_RETRY_S if is_odd else (0.1, _RETRY_MAX_S)
                await asyncio.sleep(random.uniform(*pause))  # noqa: S311 - jitter

    async def _connect_and_follow(self) -> bool:
        """Follow the engine until that fails. Returns whether it failed by an odd answer."""
        is_odd = False
        try:
            # A client of its own: after a change of engines, no old connection may be used.
            async with self._client() as client:
                await self._follow(client)
            self._mark_down("Docker ended its event stream")
        except* (httpx2.HTTPError, OSError, ValueError) as group:
            error = group.exceptions[0]
            self._mark_down(f"Docker does not answer ({str(error) or type(error).__name__})")
        except* errors.EngineUnavailable as group:
            is_odd = True
            self._mark_down(str(group.exceptions[0]))
        return is_odd

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=self._path),
            base_url="http://docker",
            timeout=httpx2.Timeout(_PING_TIMEOUT_S),
            trust_env=False,
        )

    async def _follow(self, client: httpx2.AsyncClient) -> None:
        filters = {"type": ["container"], "label": self._labels, "event": list(_ACTIONS)}
        params = {"filters": json.dumps(filters)}
        timeout = httpx2.Timeout(_PING_TIMEOUT_S, read=None)
        async with client.stream("GET", "/events", params=params, timeout=timeout) as response:
            response.raise_for_status()
            # List after the stream has begun: then no event can fall between the two.
            await self._list(client)
            async with asyncio.TaskGroup() as tasks:
                pinging = tasks.create_task(_ping(client))
                async for lines in turns(response):
                    self._apply(lines)
                pinging.cancel()

    async def _list(self, client: httpx2.AsyncClient) -> None:
        params = {"all": "1", "filters": json.dumps({"label": self._labels})}
        async with asyncio.timeout(_LIST_TIMEOUT_S):
            async with client.stream("GET", "/containers/json", params=params) as response:
                response.raise_for_status()
                body = await _read_bounded(response)
        self._containers = await parse_list(body)
        if not self.view.up:
            self.view.since = time.monotonic()
        self.view.containers = tuple(self._containers.values())
        self.view.up, self.view.reason, self.view.has_outcome = True, "", True
        self._reach_changed()

    def _apply(self, lines: Sequence[bytes]) -> None:
        """Take the events of one turn. Raises errors.EngineUnavailable (docker_answers_oddly)."""
        events = [event for event in map(answers.parse_event, lines) if event is not None]
        for event in events:
            if event.action == "destroy":
                self._containers.pop(event.container.id, None)
            else:
                self._containers[event.container.id] = event.container
                answers.check_count(self._containers)
        if events:
            self.view.containers = tuple(self._containers.values())
            self._containers_changed(
                [event.container.sandbox_id for event in events if event.action in _ENDS]
            )

    def fail(self, reason: str) -> None:
        """Count the engine as not answering: a bug has ended `run_forever`."""
        self._mark_down(reason)

    def _mark_down(self, reason: str) -> None:
        view = self.view
        was_up, old_reason = view.up, view.reason
        if was_up or not view.has_outcome:
            view.since = time.monotonic()
        view.up, view.reason, view.containers, view.has_outcome = False, reason, None, True
        if was_up or old_reason != reason:
            self._reach_changed()


async def _ping(client: httpx2.AsyncClient) -> None:
    """Ping the engine again and again, and raise when it has not answered in time.

    An engine that hangs keeps its event stream open without sending anything, so silence on the
    stream proves nothing. The client's own timeout is for one read: a trickle never exceeds it.
    """
    while True:
        async with asyncio.timeout(_PING_TIMEOUT_S):
            response = await client.get("/_ping")
        response.raise_for_status()
        await asyncio.sleep(_PING_INTERVAL_S)


async def _read_bounded(response: httpx2.Response) -> bytes:
    """The whole body. Raises errors.EngineUnavailable (docker_answers_oddly) if it is too long."""
    body = bytearray()
    async for chunk in response.aiter_raw(_CHUNK_BYTES):
        body += chunk
        if len(body) > answers.LIST_MAX_BYTES:
            raise answers.odd("its list of containers has no end")
    return bytes(body)


async def parse_list(body: bytes) -> dict[str, Container]:
    """The sandboxes in a list, by container id. Raises errors.EngineUnavailable."""
    containers = {}
    for number, item in enumerate(answers.list_items(body, "its list of containers")):
        container = answers.parse_container(item)
        if container is not None:
            containers[container.id] = container
            answers.check_count(containers)
        if number % _ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)
    return containers


async def turns(response: httpx2.Response) -> AsyncIterator[Sequence[bytes]]:
    """The lines of a stream, without empty ones, as they come: at most 64 KiB in a turn.

    Raises errors.EngineUnavailable (docker_answers_oddly) for one without end. The bytes are taken
    as they were sent: a compressed stream could be endless in a few of them.
    """
    rest = bytearray()
    async for chunk in response.aiter_raw():
        end = chunk.rfind(b"\n") + 1
        if end:
            lines = (bytes(rest) + chunk[:end]).split(b"\n")
            rest.clear()
            yield [line for line in lines if line.strip()]
        rest += chunk[end:]
        if len(rest) > answers.EVENT_MAX_BYTES:
            raise answers.odd("an event has no end")
        await asyncio.sleep(max(len(chunk), _TURN_MIN_BYTES) / EVENTS_BYTES_PER_S)
