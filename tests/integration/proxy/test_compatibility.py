"""Each row of the table of apps: both checks and a visitor, through a real nginx and front."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
from agent.apps import probe
from agent.apps.app import App
from agent.generator.channel import Channel
from agent.generator.checker import Checker
from agent.generator.progress import Progress
from agent.jobs.workshop import page_json
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot

from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.contract.health import Condition
from orchestrator.contract.manifest import AppKind, Manifest
from orchestrator.domain import ids
from orchestrator.domain.pool.routes import Route, build_table
from tests.compat import apps
from tests.compat.app_answers import FIRST, Stream
from tests.compat.app_cases import LIMIT_BYTES, WELL, Asked, Case
from tests.integration.proxy.raw_http import read_until
from tests.integration.proxy.world import APPS_ADDRESS, Backend, World, running_world, wait_until

DEADLINE_S = 20.0


class CountingSite(Site):
    """Knows how many requests have come."""

    asked = 0

    def is_ours(self, host: str) -> bool:
        self.asked += 1
        return super().is_ours(host)


class Sandbox:
    """A front before one app after the other, and its public address."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.slug = ids.new_slug()
        self.site = CountingSite(slot=Slot(folder="/nowhere", port=1))
        self.site.serving = Serving.PROCESS
        self.site.upload_max_bytes = LIMIT_BYTES
        self.site.answer_to(self.slug)
        self.front = world.backends.run(Front(self.site).listen(APPS_ADDRESS, 0))
        port = self.front.sockets[0].getsockname()[1]
        world.proxy.publish(build_table([Route(slug=self.slug, address=APPS_ADDRESS, port=port)]))
        self.host = world.host(self.slug)

    def serve(self, case: Case) -> Backend:
        app = self.world.backends.serve(case.app, case.address)
        self.site.slot = Slot(folder="/nowhere", port=app.port)
        return app

    def quick_look(self, limit_s: float) -> str:
        """What the check says that asks the app itself."""
        progress = Progress(expected_tokens=1, on_change=lambda _, __: None)
        return Checker(DirectChannel(self, limit_s), progress).check().reason

    @contextlib.contextmanager
    def slow_visitor(self) -> Iterator[None]:
        """Another visitor, who has sent a byte of a small body; in the end it gets its answer."""
        before = self.site.asked
        with self.world.connect() as client:
            head = f"POST /x HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: 5\r\n\r\n"
            client.sendall(head.encode() + b"x")
            wait_until(lambda: self.site.asked > before, "the front to hear of it")
            yield
            client.sendall(b"xxxx")
            read_until(client, b"POST 5")

    def walk(self, limit_s: float) -> str:
        """What the check says that asks at the public address."""
        settings = self.world.settings
        address = f"127.0.0.1:{settings.control_port}"
        walker = HttpProbe(address, settings.apps_domain, settings.listen_port)
        finding = asyncio.run(walker.walk(self.slug, patience_s=limit_s))
        return "" if finding.condition is Condition.WELL else finding.problem


class DirectChannel(Channel):
    """The agent's end, for questions about pages alone."""

    def __init__(self, sandbox: Sandbox, limit_s: float) -> None:
        self._world = sandbox.world
        self._limit_s = limit_s
        manifest = Manifest(kind=AppKind.PYTHON, start=("python3", "main.py"), title="App")
        self._app = App(manifest, sandbox.site.slot, add_log=lambda _: None, start_timeout_s=1)

    def ask(self, question: str, **fields: Any) -> dict[str, Any]:
        assert question == "get"
        pages = [self._get(path, fields) for path in fields["paths"]]
        return {"ended": "", "console": "", "pages": pages}

    def _get(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        page = self._world.backends.run(
            probe.get(
                self._app,
                path,
                max_bytes=fields["max_bytes"],
                navigates=fields["navigates"],
                cookie=fields["cookie"],
                limit_s=self._limit_s,
            )
        )
        return page_json(page)


@pytest.fixture(name="sandbox", scope="module")
def _sandbox() -> Iterator[Sandbox]:
    with running_world(upload_max_bytes=LIMIT_BYTES) as world:
        sandbox = Sandbox(world)
        yield sandbox

        async def close() -> None:
            sandbox.front.close()

        world.backends.run(close())


@dataclass
class Got:
    """What a visitor received."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)  # names in lower case
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    is_cut: bool = False

    @property
    def text(self) -> bytes:
        """The body as the browser reads it."""
        is_compressed = ("content-encoding", "gzip") in self.headers
        return gzip.decompress(self.body) if is_compressed and not self.is_cut else self.body


class Visitor:
    """Sends what the row says, over one connection."""

    def __init__(self, sandbox: Sandbox, case: Case) -> None:
        self._sandbox = sandbox
        self._case = case
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=10 * 1024**2)

    def visit(self) -> Got:
        address = ("127.0.0.1", self._sandbox.world.settings.listen_port)
        with socket.create_connection(address, timeout=DEADLINE_S) as connection:
            for _ in range(self._case.asked.times - 1):
                connection.sendall(self._head(self._case.asked))
            connection.sendall(self._head(self._case.asked))
            got = Got()
            for number in range(self._case.asked.times):
                if number:
                    assert got.status == self._case.outcome.status
                    trailing, _ = self._http.trailing_data
                    self._http = h11.Connection(h11.CLIENT)
                    if trailing:  # nothing would mean that the connection has ended
                        self._http.receive_data(trailing)
                    got = Got()
                self._prime()
                self._send_body(connection, got)
                self._read(connection, got)
            return got

    def _head(self, asked: Asked) -> bytes:
        headers = {"Host": self._sandbox.host, **asked.headers}
        if asked.is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif asked.body_bytes:
            headers["Content-Length"] = str(asked.body_bytes)
        target = asked.target.replace("{host}", self._sandbox.host)
        lines = [f"{asked.method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def _prime(self) -> None:
        """Tell h11 which request the answer is to."""
        asked = self._case.asked
        upgrades = "Upgrade" in asked.headers
        headers = [("Host", "x"), *(asked.headers.items() if upgrades else ())]
        self._http.send(h11.Request(method=asked.method, target="/", headers=headers))
        self._http.send(h11.EndOfMessage())

    def _send_body(self, connection: socket.socket, got: Got) -> None:
        asked = self._case.asked
        if "Expect" in asked.headers:
            event = self._next(connection)
            assert isinstance(event, h11.InformationalResponse), event
            got.interim.append(event.status_code)
        piece = b"x" * 50_000
        left = asked.body_bytes
        try:
            while left:
                part = piece[: min(left, len(piece))]
                framed = b"%x\r\n%s\r\n" % (len(part), part) if asked.is_chunked else part
                connection.sendall(framed)
                left -= len(part)
            if asked.is_chunked:
                connection.sendall(f"0\r\n{asked.trailer}\r\n".encode())
        except ConnectionError:
            return  # refused by its head: the answer is there

    def _read(self, connection: socket.socket, got: Got) -> None:
        try:
            while not isinstance(event := self._next(connection), h11.EndOfMessage):
                if isinstance(event, h11.InformationalResponse):
                    got.interim.append(event.status_code)
                    if event.status_code == 101:
                        self._switch(connection, got)
                        return
                elif isinstance(event, h11.Response):
                    got.status = event.status_code
                    got.headers = [
                        (name.decode(), value.decode("latin-1")) for name, value in event.headers
                    ]
                elif isinstance(event, h11.Data):
                    got.body += bytes(event.data)
                    self._release(got)
        except (h11.RemoteProtocolError, ConnectionError):
            got.is_cut = True

    def _next(self, connection: socket.socket) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(connection.recv(65536))
        return event

    def _release(self, got: Got) -> None:
        """Let a stream go on, once its first piece is here."""
        stream = stream_of(self._case)
        is_compressed = ("content-encoding", "gzip") in got.headers
        if stream is None:
            return
        readable = zlib.decompressobj(31).decompress(got.body) if is_compressed else got.body
        if FIRST in readable:
            self._sandbox.world.backends.run(stream.release())

    def _switch(self, connection: socket.socket, got: Got) -> None:
        got.status = 101
        for word in (b"ping", b"pong"):
            connection.sendall(word)
            assert connection.recv(100) == word


def stream_of(case: Case) -> Stream | None:
    """The stream among an app's handlers."""
    if isinstance(case.app, Stream):
        return case.app
    closure = getattr(case.app, "__closure__", None) or ()
    handlers = [cell.cell_contents for cell in closure]
    return next((handler for handler in handlers if isinstance(handler, Stream)), None)


def check_headers(case: Case, got: Got) -> None:
    for name, expected in case.outcome.headers.items():
        values = [value for other, value in got.headers if other == name.lower()]
        if expected is None:
            assert values == [], name
        else:
            assert values == ([expected] if isinstance(expected, str) else [*expected]), name


def ids_of(case: Case) -> str:
    return re.sub(r"\W+", " ", f"{case.topic}: {case.behaviour}").strip()


@pytest.mark.parametrize("case", apps.CASES, ids=ids_of)
def test_checks_and_visitors_get_what_the_table_says(sandbox: Sandbox, case: Case) -> None:
    app = sandbox.serve(case)
    try:
        looked, walked = sandbox.quick_look(case.look_s), sandbox.walk(case.look_s)
        if case.check == WELL:
            assert (looked, walked) == ("", "")
        else:
            assert case.check in looked
            assert case.check in walked
        app.heads.clear()
        beside = sandbox.slow_visitor() if case.is_beside_slow else contextlib.nullcontext()
        with beside:
            got = Visitor(sandbox, case).visit()
    finally:
        app.close()
    outcome = case.outcome
    assert (got.status, got.interim or [], got.is_cut) == (
        outcome.status,
        [*outcome.interim] or ([101] if outcome.status == 101 else []),
        outcome.is_cut,
    )
    if outcome.body is not None:
        assert got.text == outcome.body
    assert outcome.contains.encode() in got.body
    check_headers(case, got)
    for name, value in case.seen.items():
        expected = value and value.format(host=sandbox.host)
        assert app.heads[-1].headers.get(name) == expected, name
