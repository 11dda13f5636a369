"""The fence: when a port goes to another session, the old name never shows its app."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
import threading
from collections.abc import Callable, Iterable

from orchestrator.domain import ids
from tests.integration.proxy.raw_http import read_all
from tests.integration.proxy.world import (
    Backend,
    Handler,
    Head,
    World,
    respond_with,
    routes,
    running_world,
    wait_until,
)

PORTS = 25  # in each of two groups, used in turn
REUSES = 1_000
CLIENTS = 3
HEAD = "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n"
POST = "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
REQUEST_PARTS = (
    ("", HEAD + "\r\n"),
    (HEAD, "\r\n"),
    ("GE", HEAD[2:] + "\r\n"),
    (POST + "bo", "dy"),
)


class Tally:
    """What clients and backends saw. Several threads fill it."""

    def __init__(self) -> None:
        self.own = 0  # responses of the requested app
        self.gone = 0  # our 404 and 502 pages
        self.wrong: list[str] = []  # any other response
        self.foreign: list[str] = []  # requests that reached a backend under another name
        self._lock = threading.Lock()

    def add_response(self, slug: str, status: int, body: str) -> None:
        with self._lock:
            if status == 200 and body == slug:
                self.own += 1
            elif status in (404, 502):
                self.gone += 1
            else:
                self.wrong.append(f"{slug} got {status} {body[:80]!r}")

    def has_served_more(self, count: int) -> Callable[[], bool]:
        """Return a condition: from now on, the right apps have answered `count` more requests."""
        target = self.own + count
        return lambda: self.own >= target

    def make_app(self, slug: ids.Slug) -> Handler:
        """Return an app that, like the agent's front, refuses foreign hosts, and tallies them."""

        async def front(
            head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            if head.label != slug:
                self.foreign.append(f"{slug} got a request for {head.label}")
                writer.write(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n")
                return
            await respond_with(slug)(head, reader, writer)

        return front


class Hammer:
    """Clients that request random apps of `names`, over connections that they keep open."""

    def __init__(self, world: World, tally: Tally) -> None:
        self.names: tuple[ids.Slug, ...] = ()
        self._world = world
        self._tally = tally
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=20)

    def _ask(self) -> None:
        port = self._world.settings.listen_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            while not self._stop.wait(0.002):  # leaves some processor time to nginx
                slug = random.choice(self.names)
                try:
                    connection.request("GET", "/", headers={"Host": self._world.host(slug)})
                    response = connection.getresponse()
                    self._tally.add_response(slug, response.status, response.read().decode())
                except (ConnectionError, http.client.HTTPException):
                    connection.close()  # an old worker closed it; the next request opens another


class SplitRequest:
    """A request that begins before a withdrawal and ends after it."""

    def __init__(self, world: World, slug: ids.Slug, first_part: str, second_part: str) -> None:
        self._slug = slug
        self._second_part = second_part.format(world.host(slug)).encode()
        self._connection = world.connect()
        self._connection.sendall(first_part.format(world.host(slug)).encode())

    def finish(self, tally: Tally) -> None:
        with self._connection, contextlib.suppress(ConnectionError):
            self._connection.sendall(self._second_part)
            head, _, body = read_all(self._connection).partition("\r\n\r\n")
            if head:  # without a response, no foreign app was shown
                tally.add_response(self._slug, int(head.split(" ")[1]), body)


def test_a_url_never_shows_another_sessions_app_over_1000_port_reuses() -> None:
    tally = Tally()
    with running_world() as world:
        first, second = (
            [world.backends.serve(respond_with("")) for _ in range(PORTS)] for _ in range(2)
        )
        live, following = reuse_ports(first, tally), reuse_ports(second, tally)
        world.proxy.publish(routes(live))
        hammer = Hammer(world, tally)
        hammer.names = tuple(live)
        with hammer:
            for _ in range(REUSES // PORTS):
                withdrawn = live
                split_requests = [
                    SplitRequest(world, slug, *parts)
                    for slug, parts in zip(withdrawn, REQUEST_PARTS, strict=False)
                ]

                world.proxy.publish(routes(following))
                live, following = following, reuse_ports(withdrawn.values(), tally)

                hammer.names = (*withdrawn, *live, *following)
                for request in split_requests:
                    request.finish(tally)
                wait_until(tally.has_served_more(PORTS), "clients to be served")

    assert tally.wrong == []
    assert tally.foreign == []
    assert tally.gone > REUSES


def reuse_ports(backends: Iterable[Backend], tally: Tally) -> dict[ids.Slug, Backend]:
    """Give the ports to new sessions: end the apps there, and all connections to them."""
    apps = {ids.new_slug(): backend for backend in backends}
    for slug, backend in apps.items():
        backend.open(tally.make_app(slug))
    return apps
