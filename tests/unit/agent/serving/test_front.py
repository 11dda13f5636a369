"""The front: the host fence, and what passes between client and app, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import h11
import pytest
from agent.serving.front import Front, decide
from agent.serving.site import HELD_MAX, Serving, Site, Slot
from agent.serving.splice import head_for_app, is_websocket
from agent.serving.static_files import Folder

from orchestrator.contract.visits import APP_CONNECTIONS_MAX

Served = tuple[bytes, bytes]
DEADLINE_S = 20.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "app").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "app" / "index.html").write_text("app")
    (tmp_path / "lib" / "pico.min.css").write_text("css")
    slot = Slot(folder=str(tmp_path / "app"), port=1)
    site = Site(slot=slot, libraries=str(tmp_path / "lib"))
    site.files = Folder(root=slot.folder, files={"index.html"})
    site.answer_to("mine")
    site.answer_to("Ours")
    return site


def request(host: str, target: str = "/", **headers: str) -> h11.Request:
    pairs = [("Host", host), *((name.replace("_", "-"), headers[name]) for name in headers)]
    return h11.Request(method="GET", target=target, headers=pairs)


@pytest.mark.parametrize("host", ["mine", "MINE.apps.localhost:8080", "ours.example.org"])
def test_a_host_whose_first_label_is_one_of_our_slugs_is_ours(site: Site, host: str) -> None:
    assert site.is_ours(host)


@pytest.mark.parametrize(
    "host", ["", "other.apps.localhost", "apps.mine.localhost", "mine-2.apps.localhost", ".mine"]
)
def test_every_other_host_is_misdirected_in_every_state(site: Site, host: str) -> None:
    for serving in Serving:
        site.serving = serving
        answer = decide(site, request(host))
        assert answer is not None
        assert answer.status == 421


def test_each_state_has_its_answer(site: Site) -> None:
    statuses = {}
    for serving in Serving:
        site.serving = serving
        answer = decide(site, request("mine"))
        statuses[serving] = answer.status if answer else None

    assert statuses == {
        Serving.NOTHING: 404,
        Serving.STARTING: 503,
        Serving.FILES: 200,
        Serving.PROCESS: None,
        Serving.STOPPED: 503,
    }


def test_a_static_app_shows_its_own_files_and_not_the_data_of_the_version_before(
    site: Site,
) -> None:
    Path(site.slot.folder, "data.db").write_text("data")
    site.show(Serving.FILES, site.slot, site.files)
    statuses = {}
    for target in ("/", "/index.html", "/./index.html", "/data.db", "//data.db", "/x/../data.db"):
        answer = decide(site, request("mine", target))
        statuses[target] = answer.status if answer else None

    assert statuses == {
        "/": 200,
        "/index.html": 200,
        "/./index.html": 404,
        "/data.db": 404,
        "//data.db": 404,
        "/x/../data.db": 404,
    }


def test_browser_libraries_are_served_for_every_kind_of_app(site: Site) -> None:
    site.serving = Serving.PROCESS
    library = decide(site, request("mine", "/_lib/pico.min.css"))
    outside = decide(site, request("mine", "/_lib/../app/index.html"))

    assert library is not None
    assert library.status == 200
    assert "immutable" in dict(library.headers)["Cache-Control"]
    assert outside is not None
    assert outside.status == 404


def test_an_ordinary_request_is_told_to_close_whatever_the_client_wants() -> None:
    ordinary = request("mine", Connection="keep-alive, Upgrade", Upgrade="h2c", Keep_Alive="5")

    assert not is_websocket(ordinary)
    assert head_for_app(ordinary, upgrade=False) == (
        b"GET / HTTP/1.1\r\nHost: mine\r\nConnection: close\r\n\r\n"
    )


def test_a_body_with_two_lengths_goes_on_with_one() -> None:
    ordinary = request("mine", Content_Length="5", Transfer_Encoding="chunked")
    head = head_for_app(ordinary, upgrade=False).lower()

    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head


def exchange(site: Site, raw: bytes, app: Callable[[bytes], bytes], *, until: bytes) -> Served:
    """Send `raw` to a front before `app`; return what the client and what the app received.

    The app reads until it has seen `until`, answers, and hangs up.
    """

    async def run() -> Served:
        received = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while until not in received and (chunk := await reader.read(1000)):
                received.extend(chunk)
            writer.write(app(bytes(received)))
            writer.close()

        async with asyncio.timeout(DEADLINE_S):
            upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
            site.slot = replace(site.slot, port=upstream.sockets[0].getsockname()[1])
            front = await Front(site).listen("127.0.0.1", 0)
            answer = await _talk(front.sockets[0].getsockname()[1], raw)
            upstream.close()
            front.close()
        return answer, bytes(received)

    site.serving = Serving.PROCESS
    return asyncio.run(run())


def test_what_is_no_request_is_refused_however_many_visitors_there_are(site: Site) -> None:
    """The control plane looks at the published port this way: it costs the app nothing."""

    async def run() -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            front = await Front(site).listen("127.0.0.1", 0)
            port = front.sockets[0].getsockname()[1]
            visitors = [
                await asyncio.open_connection("127.0.0.1", port)
                for _ in range(APP_CONNECTIONS_MAX + 1)
            ]
            answer = await _talk(port, b"?\r\n\r\n")
            for _, writer in visitors:
                writer.close()
            front.close()
        return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 400 ")


async def _talk(port: int, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    answer: Awaitable[bytes] = reader.read()
    received = await answer
    writer.close()
    return received


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


def test_a_pipelined_second_request_never_reaches_the_app(site: Site) -> None:
    second = b"GET /second HTTP/1.1\r\nHost: other\r\n\r\n"
    raw = b"GET /first HTTP/1.1\r\nHost: mine\r\n\r\n" + second
    answer, received = exchange(site, raw, lambda _: OK, until=b"\r\n\r\n")

    assert answer == OK
    assert b"/first" in received
    assert b"/second" not in received


def test_a_chunked_body_arrives_whole_and_framed_again(site: Site) -> None:
    raw = (
        b"POST / HTTP/1.1\r\nHost: mine\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )
    answer, received = exchange(site, raw, lambda _: OK, until=b"0\r\n\r\n")
    app = h11.Connection(h11.SERVER)
    app.receive_data(received)
    app.next_event()

    assert answer == OK
    assert _body(app) == b"abcdefg"


def _body(app: h11.Connection) -> bytes:
    body = b""
    while isinstance(event := app.next_event(), h11.Data):
        body += bytes(event.data)
    return body


def test_a_websocket_is_carried_both_ways_after_the_app_agreed(site: Site) -> None:
    raw = (
        b"GET /ws HTTP/1.1\r\nHost: mine\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        b"frame from the client"
    )
    switched = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        b"frame from the app"
    )
    answer, received = exchange(site, raw, lambda _: switched, until=b"\r\n\r\n")

    assert answer == switched
    assert b"Upgrade: websocket\r\n" in received


def test_an_app_that_hangs_up_without_an_answer_gives_502(site: Site) -> None:
    answer, _ = exchange(
        site, b"GET / HTTP/1.1\r\nHost: mine\r\n\r\n", lambda _: b"", until=b"\r\n\r\n"
    )

    assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: mine\r\nHost: other\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: mine\r\nX: " + b"x" * 70_000,
    ],
)
def test_a_head_that_is_no_http_is_refused_by_the_front_itself(site: Site, raw: bytes) -> None:
    answer, received = exchange(site, raw, lambda _: OK, until=b"\r\n\r\n")

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert received == b""


def test_a_slot_is_drained_once_its_last_request_has_ended(site: Site) -> None:
    other = Slot(folder="/nowhere", port=2)

    async def run() -> list[str]:
        story = []

        async def leave() -> None:
            await site.wait_until_drained(site.slot)
            story.append("drained")

        async with asyncio.timeout(DEADLINE_S):
            with site.visit(other, b"GET"), site.visit(site.slot, b"GET"):
                with site.visit(site.slot, b"GET"):
                    leaving = asyncio.create_task(leave())
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                story.append("one left")
            story.append("both left")
            await leaving
        return story

    assert asyncio.run(run()) == ["one left", "both left", "drained"]


def test_an_app_that_resets_the_connection_gives_502(site: Site) -> None:
    async def run() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            linger = struct.pack("ii", 1, 0)  # as if its process had been killed
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()

        async with asyncio.timeout(DEADLINE_S):
            upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
            site.show(Serving.PROCESS, replace(site.slot, port=_port(upstream)))
            front = await Front(site).listen("127.0.0.1", 0)
            answer = await _talk(_port(front), b"GET / HTTP/1.1\r\nHost: mine\r\n\r\n")
            upstream.close()
            front.close()
        return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 502 ")


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def test_a_request_that_is_held_goes_with_its_body_to_whoever_is_shown_then(site: Site) -> None:
    async def run() -> tuple[bytes, bytes]:
        received = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.extend(await reader.readuntil(b"\r\n\r\n"))
            received.extend(await reader.readexactly(200_000))
            writer.write(OK)
            writer.close()

        async with asyncio.timeout(DEADLINE_S):
            upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
            site.serving = Serving.PROCESS
            front = await Front(site).listen("127.0.0.1", 0)
            head = b"POST / HTTP/1.1\r\nHost: mine\r\nContent-Length: 200000\r\n\r\n"
            with site.hold():
                talk = asyncio.create_task(_talk(_port(front), head + b"x" * 200_000))
                while not site.held:
                    await asyncio.sleep(0)
                site.show(Serving.PROCESS, replace(site.slot, port=_port(upstream)))
                assert not received
            answer = await talk
            upstream.close()
            front.close()
        return answer, bytes(received)

    answer, received = asyncio.run(run())
    assert answer == OK
    assert received.endswith(b"\r\n\r\n" + b"x" * 200_000)


def test_more_requests_than_may_wait_are_told_to_come_again(site: Site) -> None:
    async def run() -> tuple[bytes, int]:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            site.serving = Serving.PROCESS
            front = await Front(site).listen("127.0.0.1", 0)
            with site.hold():
                waiting = [tasks.create_task(site.pass_hold()) for _ in range(HELD_MAX)]
                answer = await _talk(_port(front), b"GET / HTTP/1.1\r\nHost: mine\r\n\r\n")
                held = site.held
                for task in waiting:
                    task.cancel()
            front.close()
        return answer, held

    answer, held = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in answer
    assert held == HELD_MAX


def test_a_request_is_waited_for_until_its_answer_begins_and_a_stream_no_longer(site: Site) -> None:
    async def run() -> list[str]:
        story = []

        async def wait() -> None:
            await site.wait_until_answered(site.slot, write_limit_s=DEADLINE_S)
            story.append("quiet")

        async with asyncio.timeout(DEADLINE_S):
            with site.visit(site.slot, b"GET") as stream, site.visit(site.slot, b"POST") as write:
                stream.begin_answer()
                waiting = asyncio.create_task(wait())
                await asyncio.sleep(0)
                story.append("answer")
                write.begin_answer()
                await waiting
                story.append("end of the stream")
        return story

    assert asyncio.run(run()) == ["answer", "quiet", "end of the stream"]
