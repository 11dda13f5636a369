"""Apps that don't start, answer oddly or never end, as real processes and servers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from agent.apps import probe
from agent.apps.app import App, first_answer
from agent.apps.loglines import TAIL_LINES
from agent.apps.probe import Page
from agent.serving.site import Slot

from orchestrator.contract import health
from orchestrator.contract.health import Answer
from orchestrator.contract.manifest import AppKind, Manifest, read_manifest
from orchestrator.contract.wire import LOG_LINE_MAX_CHARS, FailureCode

T = TypeVar("T")
DEADLINE_S = 30.0
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(STATUS)
        self.end_headers()
        print("asked", flush=True)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
HEAD = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def make(tmp_path: Path, port: int) -> Callable[..., App]:
    def make_app(source: str, **options: Any) -> App:
        (tmp_path / "main.py").write_text(source)
        manifest = {"kind": "python", "start": ["python3", "main.py"]}
        slot = Slot(folder=str(tmp_path), port=port)
        options = {"start_timeout_s": DEADLINE_S, "add_log": lambda _: None, **options}
        return App(read_manifest(json.dumps(manifest).encode()), slot, **options)

    return make_app


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE_S):
            return await coroutine

    return asyncio.run(bounded())


@pytest.mark.parametrize(
    ("status", "judge"),
    [(200, health.first_problem), (404, health.restart_problem), (500, lambda _: "")],
)
def test_an_app_has_started_once_it_answers_as_it_should(
    make: Callable[..., App], status: int, judge: Callable[[Answer], str]
) -> None:
    async def start() -> tuple[str, str, str]:
        app = make(SERVER.replace("STATUS", str(status)))
        assert app.ended == "is not running"
        problem = await app.start(judge=judge)
        await app.wait_until_quiet()
        ended, console = app.ended, app.console
        await app.stop()
        return problem, ended, console

    assert run(start()) == ("", "", "asked")


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("import sys; print('why', flush=True); sys.exit(3)", {}, "exited with status 3 before it"),
        (SERVER.replace("STATUS", "404"), {"start_timeout_s": 1}, "isn't well 1 s after its start"),
        (SERVER.replace("STATUS", "500"), {"start_timeout_s": 1}, "GET / answers 500."),
        ("import time; time.sleep(60)", {"start_timeout_s": 0.1}, "$PORT within 0.1 s"),
    ],
)
def test_an_app_that_does_not_start_is_stopped_and_said_to_be(
    make: Callable[..., App], source: str, options: dict[str, float], says: str
) -> None:
    async def start() -> tuple[str, str]:
        app = make(source, **options)
        return await app.start(), app.ended

    problem, ended = run(start())
    assert says in problem
    assert ended == "is not running"


def test_an_app_that_no_program_can_be_is_said_not_to_start(tmp_path: Path) -> None:
    async def start() -> str:
        manifest = Manifest(kind=AppKind.PYTHON, start=("python3", "\0"), title="App")
        slot = Slot(folder=str(tmp_path), port=1)
        return await App(manifest, slot, add_log=lambda _: None, start_timeout_s=1).start()

    assert run(start()).startswith("can't be started: ")


def test_the_console_and_a_failure_hold_only_the_last_lines(make: Callable[..., App]) -> None:
    async def start() -> App:
        app = make(f"for n in range({TAIL_LINES + 1}): print(n, 'x' * 1000 if n > 40 else '')")
        await app.start()
        return app

    app = run(start())
    failure = app.failure(FailureCode.APP_CRASHED, "It crashed.")

    assert len(app.console) == LOG_LINE_MAX_CHARS
    assert f"{TAIL_LINES} xxx" in app.console
    assert len(failure.message) == LOG_LINE_MAX_CHARS
    assert failure.message.startswith("It crashed.\nxxx")


def test_the_first_of_many_lines_are_forgotten(make: Callable[..., App]) -> None:
    async def start() -> App:
        app = make(f"for n in range({TAIL_LINES + 1}): print('a\\0', n)")
        await app.start()
        return app

    lines = run(start()).console.splitlines()
    assert [lines[0], lines[-1], len(lines)] == ["a 1", f"a {TAIL_LINES}", TAIL_LINES]


@contextlib.asynccontextmanager
async def serving(port: int, answer: bytes, *, ends: bool = True) -> AsyncIterator[None]:
    """An app's server that answers each request with these bytes."""
    talks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not ends:
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        await asyncio.gather(*filter(None, talks))


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"HTTP/1.1 204 X\r\n\r\n", Answer(status=204)),
        (b"HTTP/1.1 204\r\n", Answer(status=204)),
        (b"HTTP/1.1 103 X\r\nLink: x\r\n\r\nHTTP/1.1 200 X\r\n\r\n", Answer(status=200)),
        (b"HTTP/1.1 302 X\r\nlocation: /x\r\n\r\n", Answer(status=302, location="/x")),
        (
            b"HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\n\r\n",
            Answer(status=401, challenge="Basic"),
        ),
        (
            b"HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\n\r\n",
            Answer(status=401, challenge="Basic, Bearer"),
        ),
        (
            b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n",
            Answer(status=200, is_empty=True),
        ),
        (b"HTTP/1.1 200 X\r\nA: " + b"x" * 100_000, Answer(status=200)),
        (b"HTTP/1.1\r\n", None),
        (b"HTTP/1.1 many X\r\n", None),
        (b"SSH-2.0 200 x\r\n", None),
        (b"x" * 100_000, None),
        (b"", None),
    ],
)
def test_of_the_first_answer_its_head_counts_however_odd(
    port: int, raw: bytes, answer: Answer | None
) -> None:
    async def ask() -> Answer | None:
        async with serving(port, raw):
            return await first_answer(port)

    assert run(ask()) == answer
    assert run(first_answer(port)) is None  # now nobody listens


def page(make: Callable[..., App], answer: bytes, ends: bool = True, **bounds: Any) -> Page:
    async def ask() -> Page:
        app = make("")
        async with serving(app.slot.port, answer, ends=ends):
            return await probe.get(app, "/x", **{"max_bytes": 10, **bounds})

    return run(ask())


def test_a_page_is_its_status_headers_and_the_beginning_of_its_body(
    make: Callable[..., App],
) -> None:
    expected = Page(path="/x", status=200, headers=(("x", "y"),), body=b"x" * 10)

    assert page(make, HEAD + b"x" * 50) == expected
    assert page(make, HEAD + b"x" * 10, ends=False) == expected  # it never ends
    whole = page(make, HEAD + b"short")
    assert (whole.body, whole.is_whole) == (b"short", True)
    # As the pictures of a camera do that come one after the other, for ever.
    endless = page(make, HEAD + b"short", ends=False, limit_s=0.05)
    assert (endless.body, endless.is_whole, endless.problem) == (b"short", False, "")


ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\nbegun"


def test_a_part_that_goes_on_and_on_takes_a_moment_and_is_told(make: Callable[..., App]) -> None:
    endless = page(make, ENDLESS % b"image/jpeg", ends=False, limit_s=600)
    assert (endless.status, endless.body, endless.is_endless) == (200, b"begun", True)
    page_itself = page(make, ENDLESS % b"text/html", ends=False, navigates=True, limit_s=0.05)
    assert (page_itself.problem, page_itself.is_endless) == ("", True)


@pytest.mark.parametrize("kind", [b"text/css", b"text/javascript; charset=utf-8"])
def test_a_part_that_browsers_wait_for_has_to_end(make: Callable[..., App], kind: bytes) -> None:
    endless = page(make, ENDLESS % kind, ends=False, limit_s=0.05)
    assert endless.problem == "its end has not come within 0.05 s, and browsers wait for that"


def test_a_body_that_is_not_what_its_head_says_is_unreadable(make: Callable[..., App]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    assert page(make, head + b"plain").unreadable == "gzip"
    packed = page(make, head + gzip.compress(b"packed"), max_bytes=100)
    assert (packed.unreadable, packed.body) == ("", b"packed")


def test_a_part_is_asked_for_as_by_the_page_in_a_browser(make: Callable[..., App]) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HEAD)
        writer.close()

    async def ask() -> None:
        app = make("")
        async with await asyncio.start_server(serve, "127.0.0.1", app.slot.port):
            await probe.get(app, "/x", max_bytes=10, cookie="a=caf\xe9")
            await probe.get(app, "/x", max_bytes=10)

    run(ask())
    lines = asked[0].splitlines()
    assert b"Cookie: a=caf\xe9" in lines
    assert b"Accept: */*" in lines
    assert any(line.startswith(b"User-Agent: Mozilla/5.0") for line in lines)
    assert b"Cookie" not in asked[1]


@pytest.mark.parametrize(
    ("answer", "ends", "says"),
    [
        (b"", True, "closed the connection without an answer"),
        (b"nonsense\r\n\r\n", True, "illegal status line"),
        (HEAD[:-4], True, "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", True, "received 5 bytes"),
        (HEAD[:-4], False, "no whole answer within 0.05 s"),
        (
            b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\nshort",
            False,
            "no whole answer within 0.05 s",
        ),
    ],
)
def test_a_page_that_is_no_answer_says_why(
    make: Callable[..., App], answer: bytes, ends: bool, says: str
) -> None:
    odd = page(make, answer, ends, **({} if ends else {"limit_s": 0.05}))

    assert says in odd.problem
    assert (odd.status, odd.body) == (0, b"")


def test_an_app_that_is_gone_has_no_page(make: Callable[..., App]) -> None:
    gone = run(probe.get(make(""), "/x", max_bytes=10))

    assert "Connect" in gone.problem


def test_pages_of_a_static_app_are_cut_like_all_others(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x" * 50)
    manifest = Manifest(kind=AppKind.STATIC, start=(), title="App")
    slot = Slot(folder=str(tmp_path), port=1)
    app = App(manifest, slot, add_log=lambda _: None, start_timeout_s=1)

    assert run(probe.get(app, "/", max_bytes=10)).body == b"x" * 10
    missing = run(probe.get(app, "/missing", max_bytes=10))
    assert (missing.status, len(missing.body)) == (404, 10)
    assert (app.ended, run(app.start())) == ("", "")


def test_a_page_is_asked_for_as_a_browser_does_that_opens_it(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("page")
    manifest = Manifest(kind=AppKind.STATIC, start=(), title="App", spa=True)
    slot = Slot(folder=str(tmp_path), port=1)
    app = App(manifest, slot, add_log=lambda _: None, start_timeout_s=1)

    assert run(probe.get(app, "/recipe/3", max_bytes=10, navigates=True)).body == b"page"
    assert run(probe.get(app, "/recipe/3", max_bytes=10)).status == 404
