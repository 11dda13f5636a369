"""What runs on one host, by Docker's events: listed once per connection, then kept up to date.

Lives in the event loop of hosts/fleet.py, on a socket of this machine or on a forwarded one.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from orchestrator.adapters.docker.flags import INSTANCE_LABEL, SANDBOX_LABEL
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.diagnosis import Container

_PING_EVERY_S = 5.0
_PING_WITHIN_S = 5.0
_AGAIN_MAX_S = 1.0
_KINDS = ("create", "start", "die", "destroy")


@dataclass(kw_only=True)
class DockerView:
    """Written by the watch, read from any thread: each field is replaced whole."""

    up: bool = False
    reason: str = "not asked yet"
    since: float = field(default_factory=time.time)  # of `up`, seconds since 1970
    tried: bool = False
    containers: Sequence[Container] | None = None  # None: not known just now


class DockerWatch:
    """One host's. `live` runs until it is cancelled."""

    def __init__(self, socket_path: str, instance: str, changed: Callable[[bool], None]) -> None:
        """`changed` is called when something of `view` did: True for its reach, False for its
        containers alone."""
        self.view = DockerView()
        self._may_ask = asyncio.Event()  # set while there is a link to ask through
        self._following: asyncio.Task[None] | None = None
        self._path = socket_path
        self._mine = [f"{INSTANCE_LABEL}={instance}"]
        self._changed = changed
        self._known: dict[str, Container] = {}

    def begin(self) -> None:
        """There is a way to ask now."""
        self._may_ask.set()

    def pause(self) -> None:
        """There is none, or a new one: what was opened through the old one may never answer."""
        self._may_ask.clear()
        if self._following is not None:
            self._following.cancel()

    async def live(self) -> None:
        while True:
            await self._may_ask.wait()
            self._following = asyncio.ensure_future(self._follow_once())
            try:
                await asyncio.wait({self._following})
            finally:
                self._following.cancel()
            if self._following.cancelled():
                self._down("its link is down")
            else:
                self._following.result()
                await asyncio.sleep(random.uniform(0.1, _AGAIN_MAX_S))  # noqa: S311 - jitter

    async def _follow_once(self) -> None:
        try:
            # Its own: after a change of engines nothing of the old connections is used.
            async with self._client() as client:
                await self._follow(client)
            self._down("Docker ended its event stream")
        except* (httpx2.HTTPError, OSError, ValueError) as broken:
            first = broken.exceptions[0]
            self._down(f"Docker does not answer ({str(first) or type(first).__name__})")

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=self._path),
            base_url="http://docker",
            timeout=httpx2.Timeout(_PING_WITHIN_S),
            trust_env=False,
        )

    async def _follow(self, client: httpx2.AsyncClient) -> None:
        filters = {"type": ["container"], "label": self._mine, "event": list(_KINDS)}
        forever = httpx2.Timeout(_PING_WITHIN_S, read=None)
        asked = {"filters": json.dumps(filters)}
        async with client.stream("GET", "/events", params=asked, timeout=forever) as events:
            events.raise_for_status()
            await self._list(client)  # after the stream began: nothing falls in between
            async with asyncio.TaskGroup() as both:
                pinging = both.create_task(_ping(client))
                async for line in events.aiter_lines():
                    if line.strip():
                        self._take(json.loads(line))
                pinging.cancel()

    async def _list(self, client: httpx2.AsyncClient) -> None:
        asked = {"all": "1", "filters": json.dumps({"label": self._mine})}
        answer = await client.get("/containers/json", params=asked)
        answer.raise_for_status()
        found = [item for item in answer.json() if SANDBOX_LABEL in item["Labels"]]
        self._known = {item["Id"]: container_of(item) for item in found}
        if not self.view.up:
            self.view.since = time.time()
        self.view.containers = tuple(self._known.values())
        self.view.up, self.view.reason, self.view.tried = True, "", True
        self._changed(True)

    def _take(self, event: Mapping[str, Any]) -> None:
        container_id, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
        sandbox_id = attributes.get(SANDBOX_LABEL)
        if sandbox_id is None:
            return
        if event["Action"] == "destroy":
            self._known.pop(container_id, None)
        else:
            running = event["Action"] == "start"
            self._known[container_id] = Container(
                id=container_id,
                sandbox_id=SandboxId(sandbox_id),
                running=running,
                exited=event["Action"] == "die",
                exit_note="" if running else _note(event["Action"], attributes),
            )
        self.view.containers = tuple(self._known.values())
        self._changed(False)

    def _down(self, reason: str) -> None:
        view = self.view
        was_up, said = view.up, view.reason
        if was_up or not view.tried:
            view.since = time.time()
        view.up, view.reason, view.containers, view.tried = False, reason, None, True
        if was_up or said != reason:
            self._changed(True)


async def _ping(client: httpx2.AsyncClient) -> None:
    """An engine that hangs keeps its event stream open and says nothing: ask it. Raises when it
    doesn't answer in time."""
    while True:
        (await client.get("/_ping")).raise_for_status()
        await asyncio.sleep(_PING_EVERY_S)


def container_of(item: Mapping[str, Any]) -> Container:
    """An entry of Docker's list of containers."""
    running = item["State"] == "running"
    return Container(
        id=item["Id"],
        sandbox_id=SandboxId(item["Labels"][SANDBOX_LABEL]),
        running=running,
        exited=item["State"] in {"exited", "dead"},
        exit_note="" if running else item["Status"],
    )


def _note(action: str, attributes: Mapping[str, str]) -> str:
    return f"exit code {attributes.get('exitCode', '?')}" if action == "die" else "created"
