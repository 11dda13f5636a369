"""The fence: a port that is handed to another session never shows its app under the old name."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
import threading
from collections.abc import Callable, Iterable

from orchestrator.domain import ids
from tests.integration.proxy.raw_http import read_all
from tests.integration.proxy.world import Backend, Handler, Head, World, hello, routes, until, world

PORTS = 25  # in each of two groups that take turns
REUSES = 1_000
CLIENTS = 3
HEAD = "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n"
POST = "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
BEGUN = (("", HEAD + "\r\n"), (HEAD, "\r\n"), ("GE", HEAD[2:] + "\r\n"), (POST + "bo", "dy"))


class Tally:
    """What clients and backends saw; filled by threads."""

    def __init__(self) -> None:
        self.own = 0  # answers of the app that was asked for
        self.gone = 0  # pages of ours instead
        self.wrong: list[str] = []  # anything else that a client got
        self.foreign: list[str] = []  # heads of which nothing should have reached a backend
        self._lock = threading.Lock()

    def client_got(self, slug: str, status: int, body: str) -> None:
        with self._lock:
            if status == 200 and body == slug:
                self.own += 1
            elif status in (404, 502):
                self.gone += 1
            else:
                self.wrong.append(f"{slug} got {status} {body[:80]!r}")

    def has_served(self, more: int) -> Callable[[], bool]:
        """Whether so many more requests than now were answered by the right app."""
        enough = self.own + more
        return lambda: self.own >= enough

    def tenant(self, slug: ids.Slug) -> Handler:
        """An app behind a front that, like the agent's, refuses foreign hosts and counts them."""

        async def front(
            head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            if head.label != slug:
                self.foreign.append(f"{slug} got a request for {head.label}")
                writer.write(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n")
                return
            await hello(slug)(head, reader, writer)

        return front


class Hammer:
    """Clients that ask for whatever stands in `names`, over connections that they keep."""

    def __init__(self, w: World, tally: Tally) -> None:
        self.names: tuple[ids.Slug, ...] = ()
        self._w = w
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
        port = self._w.settings.listen_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            while not self._stop.wait(0.002):  # leaves the processor to nginx now and then
                slug = random.choice(self.names)
                try:
                    connection.request("GET", "/", headers={"Host": self._w.host(slug)})
                    response = connection.getresponse()
                    self._tally.client_got(slug, response.status, response.read().decode())
                except (ConnectionError, http.client.HTTPException):
                    connection.close()  # an old worker closed it; the next request opens another


class Late:
    """A request that was begun before a withdrawal and goes on after it."""

    def __init__(self, w: World, slug: ids.Slug, sent: str, rest: str) -> None:
        self._slug = slug
        self._rest = rest.format(w.host(slug)).encode()
        self._connection = w.connect()
        self._connection.sendall(sent.format(w.host(slug)).encode())

    def finish(self, tally: Tally) -> None:
        with self._connection, contextlib.suppress(ConnectionError):
            self._connection.sendall(self._rest)
            head, _, body = read_all(self._connection).partition("\r\n\r\n")
            if head:  # no answer shows nobody's app
                tally.client_got(self._slug, int(head.split(" ")[1]), body)


def test_a_url_never_shows_another_sessions_app_over_1000_port_reuses() -> None:
    tally = Tally()
    with world() as w:
        first, second = ([w.backends.serve(hello("")) for _ in range(PORTS)] for _ in range(2))
        live, following = move_in(first, tally), move_in(second, tally)
        w.proxy.publish(routes(live))
        hammer = Hammer(w, tally)
        hammer.names = tuple(live)
        with hammer:
            for _ in range(REUSES // PORTS):
                withdrawn = live
                late = [
                    Late(w, slug, *parts) for slug, parts in zip(withdrawn, BEGUN, strict=False)
                ]

                w.proxy.publish(routes(following))
                live, following = following, move_in(withdrawn.values(), tally)

                hammer.names = (*withdrawn, *live, *following)
                for request in late:
                    request.finish(tally)
                until(tally.has_served(PORTS), "clients to be served")

    assert tally.wrong == []
    assert tally.foreign == []
    assert tally.gone > REUSES


def move_in(ports: Iterable[Backend], tally: Tally) -> dict[ids.Slug, Backend]:
    """New sessions get these ports: who was there, and all connections to them, are gone."""
    tenants = {ids.new_slug(): backend for backend in ports}
    for slug, backend in tenants.items():
        backend.open(tally.tenant(slug))
    return tenants
