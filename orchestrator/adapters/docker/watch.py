"""The containers of one host, kept up to date by Docker's event stream.

The watch lists the containers once per connection and then follows the events. It runs in the event
loop of hosts/fleet.py, on a local socket: the engine's own, or one that a link forwards.

All hosts share that loop. So what one of them sends is taken in turns, each with a bound; a host
that sends fast is paused, and the rest waits in its own socket.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.adapters.docker import answers, questions
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
# What one host may send of its events. An event takes about 1 KiB.
EVENTS_BYTES_PER_S = 1024**2
_TURN_MIN_BYTES = 1024  # what a turn counts at least
_AHEAD_S = 0.005  # how far a host may be ahead of that: a few events need no pause
_REASON_MAX = 200  # characters of a reason: it may quote what the host has sent
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
            await self._follow()
            self._mark_down("Docker ended its event stream")
        except* (OSError, ValueError) as group:
            error = group.exceptions[0]
            reason = str(error)[:_REASON_MAX] or type(error).__name__
            self._mark_down(f"Docker does not answer ({reason})")
        except* errors.EngineUnavailable as group:
            is_odd = True
            self._mark_down(str(group.exceptions[0]))
        return is_odd

    async def _follow(self) -> None:
        filters = {"type": ["container"], "label": self._labels, "event": list(_ACTIONS)}
        params = {"filters": json.dumps(filters)}
        async with questions.get(self._path, "/events", params) as stream:
            # List after the stream has begun: then no event can fall between the two.
            await self._list()
            async with asyncio.TaskGroup() as tasks:
                pinging = tasks.create_task(_ping(self._path))
                async for lines in turns(stream):
                    self._apply(lines)
                pinging.cancel()

    async def _list(self) -> None:
        params = {"all": "1", "filters": json.dumps({"label": self._labels})}
        body = await _fetch(self._path, "/containers/json", _LIST_TIMEOUT_S, params)
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


async def _ping(socket_path: str) -> None:
    """Ping the engine again and again, and raise when it has not answered in time.

    An engine that hangs keeps its event stream open without sending anything, so silence on the
    stream proves nothing. The time is for the whole answer: an engine may trickle it.
    """
    while True:
        await _fetch(socket_path, "/_ping", _PING_TIMEOUT_S)
        await asyncio.sleep(_PING_INTERVAL_S)


async def _fetch(
    socket_path: str, target: str, within_s: float, params: Mapping[str, str] | None = None
) -> bytes:
    """The whole body of an answer. Raises OSError, and errors.EngineUnavailable
    (docker_answers_oddly) if it is too long."""
    try:
        async with asyncio.timeout(within_s), questions.get(socket_path, target, params) as pieces:
            return await _read_bounded(pieces, target)
    except TimeoutError as error:
        reason = str(error) or f"no whole answer to GET {target} in {within_s:g} s"
        raise TimeoutError(reason) from error


async def _read_bounded(pieces: AsyncIterable[bytes], target: str) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > answers.LIST_MAX_BYTES:
            raise answers.odd(f"its answer to GET {target} has no end")
        await asyncio.sleep(0)  # others run in between, however fast it sends
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


async def turns(pieces: AsyncIterable[bytes]) -> AsyncIterator[Sequence[bytes]]:
    """The lines of a stream, without empty ones, as they come: a turn is what one read has brought.

    Raises errors.EngineUnavailable (docker_answers_oddly) for one without end.
    """
    loop = asyncio.get_running_loop()
    rest = bytearray()
    paid_at = loop.time()  # when the time for what has come so far will have passed
    async for piece in pieces:
        end = piece.rfind(b"\n") + 1
        if end:
            lines = (bytes(rest) + piece[:end]).split(b"\n")
            rest.clear()
            yield [line for line in lines if line.strip()]
        rest += piece[end:]
        if len(rest) > answers.EVENT_MAX_BYTES:
            raise answers.odd("an event has no end")
        now = loop.time()
        paid_at = max(paid_at, now) + max(len(piece), _TURN_MIN_BYTES) / EVENTS_BYTES_PER_S
        await asyncio.sleep(paid_at - now if paid_at - now > _AHEAD_S else 0)
