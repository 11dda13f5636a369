"""An agent before a home that is odd, slow or gone, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from agent.home.client import HomeClient, HomeUnreachable, Response
from agent.home.identity import MAX_LINE_BYTES, read_identity
from agent.home.inbox import follow_inbox
from agent.home.reports import ReportSender
from agent.jobs.runner import Runner

from orchestrator.contract.wire import (
    Assignment,
    BundleRef,
    Identity,
    Kind,
    Phase,
    ProtocolError,
)

T = TypeVar("T")
DEADLINE_S = 20.0
ASSIGNMENT = Assignment(
    id="a1",
    kind=Kind.BUNDLE,
    session_id="ses_1",
    session_token="t",
    slug="abc",
    max_tokens=0,
    start_timeout_s=30,
    bundle=BundleRef(sha256="ab", size_bytes=1),
)
INBOX = json.dumps({"assignment": ASSIGNMENT.as_json()})


def answer(status: int, body: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Home:
    """Gives its next answer to each connection, then hangs up. It never reads a body.

    For the answer None it waits until the client hangs up.
    """

    def __init__(self, path: Path, *answers: bytes | None) -> None:
        self.path = str(path)
        self.heads: list[bytes] = []
        self._answers = list(answers)
        self._talks: set[asyncio.Task[None] | None] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[HomeClient]:
        server = await asyncio.start_unix_server(self._serve, self.path)
        try:
            yield HomeClient(self.path)
        finally:
            server.close()
            await asyncio.gather(*filter(None, self._talks))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks.add(asyncio.current_task())
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        answered = self._answers.pop(0)
        if answered is None:
            await reader.read()
        else:
            writer.write(answered)
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="home-") as folder:  # a socket's path must be short
        yield Path(folder) / "s"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE_S):
            return await coroutine

    return asyncio.run(bounded())


@pytest.mark.parametrize(
    "answered",
    [
        b"",
        b"nonsense\r\n\r\n",
        answer(200)[:12],
        answer(200, "whole")[:-1],
        answer(200, "x" * 11),
    ],
)
def test_an_answer_that_is_none_is_a_home_that_can_not_be_reached(
    path: Path, answered: bytes
) -> None:
    async def ask() -> Response:
        async with Home(path, answered).listening() as client:
            return await client.request("GET", "/x", token="t", max_body_bytes=10)

    with pytest.raises(HomeUnreachable):
        run(ask())


def test_a_home_that_is_gone_or_hangs_can_not_be_reached(path: Path) -> None:
    with pytest.raises(HomeUnreachable):
        run(HomeClient(str(path)).request("GET", "/x", token="t"))

    async def ask() -> Response:
        async with Home(path, None).listening() as client:
            return await client.request("GET", "/x", token="t", timeout_s=0.05)

    with pytest.raises(HomeUnreachable, match="no answer to GET /x"):
        run(ask())


def test_an_answer_at_its_bound_is_taken(path: Path) -> None:
    async def ask() -> Response:
        async with Home(path, answer(200, "x" * 10)).listening() as client:
            return await client.request("GET", "/x", token="t", max_body_bytes=10)

    assert run(ask()) == Response(status=200, body=b"x" * 10)


def test_a_body_that_home_refuses_to_read_gets_its_answer(path: Path) -> None:
    async def ask() -> Response:
        async with Home(path, answer(413)).listening() as client:
            return await client.request("PUT", "/x", token="t", body=b"x" * 4_000_000)

    assert run(ask()).status == 413


def test_what_may_pass_is_asked_for_again(path: Path) -> None:
    home = Home(path, b"", answer(503), answer(429), answer(404))

    async def ask() -> Response:
        async with home.listening() as client:
            return await client.request_until_answered("GET", "/x", token="t")

    assert run(ask()).status == 404
    assert len(home.heads) == 4


class Worker(Runner):
    """Keeps assignments and carries out none."""

    def __init__(self) -> None:
        self.assignment_id = ""
        self.begun: list[str] = []

    async def replace(self, assignment: Assignment) -> None:
        self.assignment_id = assignment.id
        self.begun.append(assignment.id)


@pytest.mark.parametrize("dismissal", [401, 403, 410])
def test_an_inbox_is_followed_whatever_it_holds_until_home_dismisses_us(
    path: Path, dismissal: int
) -> None:
    nonsense = [answer(200, "{"), answer(200, "{}"), answer(500), b"", answer(204)]
    same = answer(200, INBOX)
    home, worker = Home(path, *nonsense, same, same, answer(dismissal)), Worker()

    async def follow() -> None:
        async with home.listening() as client:
            await follow_inbox(client, Identity(sandbox_id="s", token="t", slug="x"), worker)

    run(follow())
    asked = [head.split(b" ", 2)[1].decode() for head in home.heads]
    assert worker.begun == ["a1"]
    # It waits after an answer that made sense, and never again for an assignment that it has.
    assert asked == [
        *["/agent/inbox?wait=0&have="] * 5,
        "/agent/inbox?wait=25&have=",
        *["/agent/inbox?wait=25&have=a1"] * 2,
    ]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_reports_are_sent_until_the_session_has_left(path: Path, status: int) -> None:
    home = Home(path, answer(422), answer(200), answer(status))

    async def deliver() -> None:
        async with home.listening() as client:
            sender = ReportSender(client, ASSIGNMENT)
            delivering = asyncio.create_task(sender.deliver())
            for count, phase in enumerate((Phase.GENERATING, Phase.DEPLOYING, Phase.READY), 1):
                sender.report(phase, 90, "x")
                while len(home.heads) < count:
                    await asyncio.sleep(0)
            await delivering

    run(deliver())
    assert len(home.heads) == 3


async def idle(home: Home, heads: int) -> None:
    """Wait until so many requests have come, and the sender has gone to sleep after the last."""
    while len(home.heads) < heads:
        await asyncio.sleep(0.01)
    for _ in range(100):
        await asyncio.sleep(0)


def test_progress_and_lines_that_wait_for_their_time_are_sent_then(path: Path) -> None:
    home = Home(path, answer(200), answer(200), answer(404))

    async def deliver() -> None:
        async with home.listening() as client:
            sender = ReportSender(client, ASSIGNMENT)
            sender.report(Phase.GENERATING, 31, "asking")
            delivering = asyncio.create_task(sender.deliver())
            await idle(home, 1)
            sender.report(Phase.GENERATING, 32, "writing")
            await idle(home, 2)
            sender.add_log("a line")
            await delivering

    run(deliver())
    assert len(home.heads) == 3


def test_an_identity_is_read_while_its_sender_goes_on_listening() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"sandbox_id": "s", "token": "t", "slug": "x"}\n')

    assert run(read_identity(reading)).token == "t"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("given", [b"", b'{"sandbox_id": "s"', b"x" * (MAX_LINE_BYTES + 1)])
def test_an_identity_without_end_is_not_waited_for(given: bytes) -> None:
    reading, writing = os.pipe()

    async def read() -> Identity:
        os.write(writing, given)
        if len(given) <= MAX_LINE_BYTES:
            os.close(writing)
        return await read_identity(reading)

    with pytest.raises(ProtocolError, match="ended before a whole line"):
        run(read())
    os.close(reading)
    if len(given) > MAX_LINE_BYTES:
        os.close(writing)
