"""A real nginx in its own folder, and small HTTP servers behind it, for the nginx tests."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.adapters.proxy import nginx, nginx_workers
from orchestrator.domain import ids
from orchestrator.domain.pool.routes import Route, RouteTable, build_table

ROOT = Path(__file__).parents[3]
# Not 127.0.0.1: clients get their ports there, and could take an app's port.
APPS_ADDRESS = "127.77.0.1"


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of a request as a backend received it. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def label(self) -> str:
        """First label of the host."""
        return self.headers.get("host", "").split(".")[0]


@dataclass(frozen=True, kw_only=True)
class Response:
    """The response that a client received."""

    status: int
    headers: dict[str, str]
    body: str


Handler = Callable[[Head, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Backends:
    """HTTP servers in one event loop, in a thread. Each connection serves one request."""

    def __init__(self) -> None:
        self._all: list[Backend] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    def serve(self, handler: Handler, address: str = APPS_ADDRESS) -> Backend:
        backend = Backend(self, handler, address)
        backend.open()
        self._all.append(backend)
        return backend

    def close(self) -> None:
        for backend in self._all:
            backend.close()
        self.run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    @staticmethod
    async def _end_tasks() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await run_ready_callbacks()  # closed transports end in the next iterations of the loop


class Backend:
    """One server. It keeps the heads that it received. Closing it drops its connections, like the
    end of a container."""

    def __init__(self, backends: Backends, handler: Handler, address: str) -> None:
        self.heads: list[Head] = []
        self.port = 0
        self._backends = backends
        self._first = handler
        self._address = address
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def open(self, handler: Handler | None = None) -> None:
        """Listen, again on the same port. Connections from before are dropped."""
        self._backends.run(self._listen(handler or self._first))

    def close(self) -> None:
        self._backends.run(self._drop())

    async def _listen(self, handler: Handler) -> None:
        await self._drop()
        # Bind the handler to the listener: it never serves what the one before has accepted.
        serve = functools.partial(self._serve, handler)
        self._server = await asyncio.start_server(serve, self._address, self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _drop(self) -> None:
        if self._server is not None:
            # asyncio loses a connection that it accepts while its server closes. So stop accepting
            # first, and let accepted connections through.
            for listener in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            await run_ready_callbacks()
            self._server.close()
            self._server = None
        for writer in tuple(self._open):
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._open.clear()

    async def _serve(
        self, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = parse((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                self.heads.append(head)
                await handler(head, reader, writer)
                await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


class World:
    """The settings, nginx, proxy adapter and backends of one test."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.backends = Backends()
        self.api = self.backends.serve(respond_with("api"), "127.0.0.1")
        self.settings = nginx.NginxSettings(
            folder=folder,
            templates=ROOT / "proxy" / "nginx",
            pages=ROOT / "proxy" / "pages",
            page_files=ROOT / "orchestrator" / "entrypoints" / "api" / "web",
            listen_port=free_port(),
            control_port=free_port(),
            api_addresses=(f"127.0.0.1:{self.api.port}",),
            apps_log=folder / "apps.log",
        )
        self.settings = replace(self.settings, **settings)
        self.proxy = nginx.NginxProxy(self.settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def apps_log(self) -> Path:
        """Where nginx logs requests for apps, if the settings say so."""
        return self.settings.apps_log

    def start(self, **popen: Any) -> None:
        """Start nginx like a supervisor, and wait until it answers."""
        command = [self.settings.binary, "-c", f"{self.settings.folder}/nginx.conf"]
        process = subprocess.Popen(
            [*command, "-g", "daemon off;"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            **popen,
        )
        self._process = process
        wait_until(
            lambda: process.poll() is not None or self.proxy.published() is not None, "nginx"
        )
        assert process.poll() is None, "nginx did not start"

    def kill(self) -> None:
        """Send SIGKILL to the master and its process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)
            self._process = None

    def workers(self) -> list[nginx_workers.Process]:
        master = nginx_workers.find_master(self.settings.folder / "nginx.pid")
        return nginx_workers.list_children(master)

    def publish_app(self, handler: Handler | None = None) -> tuple[ids.Slug, Backend]:
        """Publish only this backend, under a new name. It answers with its name by default."""
        slug = ids.new_slug()
        backend = self.backends.serve(handler or respond_with(slug))
        self.proxy.publish(routes({slug: backend}))
        return slug, backend

    def host(self, slug: str) -> str:
        return f"{slug}.{self.settings.apps_domain}:{self.settings.listen_port}"

    def ask(self, host: str, target: str = "/", method: str = "GET", **more: Any) -> Response:
        """Send one request through nginx, on its own connection."""
        address = more.pop("address", "127.0.0.1")
        connection = http.client.HTTPConnection(address, self.settings.listen_port, timeout=10)
        with contextlib.closing(connection):
            headers = {"Host": host, **more.pop("headers", {})}
            connection.request(method, target, headers=headers, **more)
            response = connection.getresponse()
            body = response.read().decode()
            response_headers = {name.lower(): value for name, value in response.getheaders()}
            return Response(status=response.status, headers=response_headers, body=body)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.settings.listen_port), timeout=10)

    def close(self) -> None:
        self.kill()
        self.backends.close()


@contextlib.contextmanager
def running_world(*, started: bool = True, **settings: Any) -> Iterator[World]:
    """Yield a world in a folder that nginx's workers, which run as nobody, can enter."""
    folder = Path(tempfile.mkdtemp(prefix="spawn-nginx-test-"))
    folder.chmod(0o755)
    world = World(folder, **settings)
    try:
        nginx.write_base(world.settings)
        if started:
            world.start()
        yield world
    finally:
        world.close()
        shutil.rmtree(folder)


def routes(backends: dict[ids.Slug, Backend]) -> RouteTable:
    """The table that routes each name to its backend."""
    return build_table(
        Route(slug=slug, address=APPS_ADDRESS, port=backend.port)
        for slug, backend in backends.items()
    )


def respond_with(text: str, status: str = "200 OK", *headers: str) -> Handler:
    """Return a handler that answers every request with that text.

    It says that the connection ends: nginx would else send the next request over it, and find out.
    """

    async def handle(
        head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(int(head.headers.get("content-length", "0")))
        length = f"Content-Length: {len(text)}"
        lines = (f"HTTP/1.1 {status}", "Connection: close", length, *headers, "", text)
        writer.write("\r\n".join(lines).encode())

    return handle


async def echo(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switch to WebSocket if the request asks for it, and send back every byte."""
    if head.headers.get("upgrade") != "websocket" or head.headers["connection"] != "upgrade":
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        return
    writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()


async def run_ready_callbacks() -> None:
    """Let the event loop run all callbacks that are ready, and those that these schedule."""
    for _ in range(4):
        await asyncio.sleep(0)


def parse(text: str) -> Head:
    first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.split(": ", 1) for line in lines)
    return Head(
        method=method, target=target, headers={name.lower(): value for name, value in pairs}
    )


def wait_until(condition: Callable[[], bool], description: str, deadline_s: float = 10) -> None:
    """Wait for a condition. Only a failing test reaches the deadline."""
    ends_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends_at, f"waited in vain for {description}"
        time.sleep(0.005)


def open_files(folder: Path) -> list[str]:
    """Which files below the folder any process has open, deleted ones too."""
    names = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it ended, or isn't ours
            names.append(str(descriptor.readlink()))
    return [name for name in names if name.startswith(f"{folder}/")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
