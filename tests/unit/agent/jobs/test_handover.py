"""A change of a running app keeps what the app stored: real processes, files and connections."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from agent.apps.app import App
from agent.failures import AssignmentFailed
from agent.home.client import HomeClient
from agent.jobs.handover import Handover
from agent.jobs.messages import Start
from agent.jobs.trials import PublicAddress
from agent.jobs.workshop import Workshop
from agent.serving.front import Front
from agent.serving.site import Site, Slot
from agent.serving.stage import Stage

from orchestrator.contract.wire import FailureCode, Limits

CHANGES = 20
WRITES_PER_S = 8
DEADLINE_S = 300.0
MODES = ("delete", "truncate", "persist", "memory", "off", "wal")
"""All journal modes of SQLite: https://www.sqlite.org/pragma.html#pragma_journal_mode."""
STORES = (*MODES, "json")

APP = """
    import json, os, sqlite3, sys, threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    MODES = ALL_MODES
    FILL = "x" * 4000
    LOCK = threading.Lock()
    threading.stack_size(256 * 1024)  # on a busy machine there are many threads at once


    def connect(name):
        new = not os.path.exists(f"{name}.db")
        db = sqlite3.connect(f"{name}.db", check_same_thread=False)
        db.execute(f"PRAGMA journal_mode={name}")
        db.execute("PRAGMA synchronous=OFF")  # as in a sandbox, where all is in memory
        if new:
            db.execute("CREATE TABLE rows (number INTEGER, fill TEXT)")
            db.executemany("INSERT INTO rows VALUES (-1, ?)", [(FILL,)] * 250)
            db.commit()
        return db


    OPEN = connect("wal")  # is never closed
    for mode in MODES:
        connect(mode).close()
    if not os.path.exists("rows.json"):
        open("rows.json", "w").write("[]")
    json.load(open("rows.json"))


    def add(store, number):
        if store == "json":
            with LOCK:
                rows = [*json.load(open("rows.json")), number]
                with open("rows.json", "w") as file:
                    for row in rows:
                        file.write(("[" if row is rows[0] else ",") + str(row).ljust(100))
                    file.write("]")
        elif store == "wal":
            with LOCK, OPEN:
                OPEN.execute("INSERT INTO rows VALUES (?, ?)", (number, FILL))
        else:
            db = connect(store)
            with db:
                db.execute("INSERT INTO rows VALUES (?, ?)", (number, FILL))
            db.close()


    def check():
        problems = {}
        for store in MODES:
            db = connect(store)
            problems[store] = db.execute("PRAGMA integrity_check").fetchone()[0]
            db.close()
        return problems


    def rows():
        kept = {"json": json.load(open("rows.json"))}
        for store in MODES:
            db = connect(store)
            kept[store] = [n for (n,) in db.execute("SELECT number FROM rows WHERE number >= 0")]
            db.close()
        return kept


    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            with LOCK:
                answer = {"/check": check, "/rows": rows}.get(self.path, lambda: VERSION)()
            self.answer(answer)

        def do_POST(self):
            store, number = self.rfile.read(int(self.headers["Content-Length"])).decode().split()
            add(store, int(number))
            self.answer("kept")

        def answer(self, answer):
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass


    class Server(ThreadingHTTPServer):
        request_queue_size = 100


    Server(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


class World:
    """The agent without its home: a front, a stage with two slots, a workshop for each change."""

    def __init__(self, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self._folder = folder
        self.slots = [Slot(folder=str(folder / name), port=free_port()) for name in ("src", "next")]
        self.site = Site(slot=self.slots[0])
        self.site.answer_to("app")
        self.failures: list[AssignmentFailed] = []
        self.stage = Stage(
            self.site,
            tasks,
            on_failure=self.failures.append,
            slots=self.slots,
            processes_max=100_000,  # this machine has others
        )
        self.log: list[str] = []
        self.port = 0

    async def change(
        self,
        source: str,
        *,
        files: Sequence[str] = (),
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Try a version and show it; `meanwhile` runs after its check."""
        work = self._folder / "work"
        work.mkdir(exist_ok=True)
        async with self.stage.free_slot() as slot:
            handover = Handover(self.stage, self.site, add_log=self.log.append)
            await handover.note_bundle(str(work))
            (work / "spawn.json").write_text('{"kind": "python", "start": ["python3", "main.py"]}')
            for name in files:
                (work / name).touch()
            (work / "main.py").write_text(textwrap.dedent(source))
            await handover.finish(await self._make(slot, handover, str(work), meanwhile))

    async def _make(
        self, slot: Slot, handover: Handover, work: str, meanwhile: Callable[[], object]
    ) -> App:
        workshop = Workshop(
            slot,
            limits=Limits(),
            start_timeout_s=30,
            add_log=self.log.append,
            public_address=PublicAddress(HomeClient("/nowhere"), self.site, "token"),
            handover=handover,
            folder=work,
        )
        try:
            answer = await workshop.answer(Start())
            assert not answer["problem"], answer
            meanwhile()
            app = workshop.release()
            assert app is not None
            return app
        finally:
            await workshop.close()

    async def ask(self, path: str = "/", body: str = "") -> object:
        """The front's answer to a request, as JSON. A body makes it a POST."""
        head, content = await self._send(path, body)
        assert b" 200 " in head.partition(b"\r\n")[0], head or "no answer"
        return json.loads(content)

    async def status(self, body: str, *, path: str = "/", method: str = "POST") -> int:
        """The status of the front's answer to a request with a body."""
        head, _ = await self._send(path, body, method)
        return int(head.split()[1])

    async def _send(self, path: str, body: str, method: str = "POST") -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"{method if body else 'GET'} {path} HTTP/1.0\r\nHost: app\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            head, _, content = (await reader.read()).partition(b"\r\n\r\n")
            return head, content
        finally:
            writer.close()


class Writer:
    """Writes to a store many times a second, and remembers what was acknowledged."""

    def __init__(self, world: World, store: str, tasks: asyncio.TaskGroup) -> None:
        self._world = world
        self._store = store
        self._tasks = tasks
        self.acknowledged: set[int] = set()
        self._writes: list[asyncio.Task[None]] = []
        self._clock = tasks.create_task(self._run())

    async def finish(self) -> None:
        self._clock.cancel()
        await asyncio.gather(*self._writes)

    async def _run(self) -> None:
        for number in itertools.count():
            self._writes.append(self._tasks.create_task(self._write(number)))
            await asyncio.sleep(1 / WRITES_PER_S)

    async def _write(self, number: int) -> None:
        await self._world.ask(body=f"{self._store} {number}")
        self.acknowledged.add(number)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def run(folder: Path, story: Callable[[World, asyncio.TaskGroup], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            world = World(folder, tasks)
            front = await Front(world.site).listen("127.0.0.1", 0)
            world.port = front.sockets[0].getsockname()[1]
            try:
                await story(world, tasks)
            finally:
                front.close()
                await world.stage.close()

    asyncio.run(play())


def version(number: int) -> str:
    return APP.replace("VERSION", str(number)).replace("ALL_MODES", repr(MODES))


def test_twenty_changes_under_busy_writers_lose_no_acknowledged_write_and_tear_no_file(
    tmp_path: Path,
) -> None:
    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(version(0))
        writers = {store: Writer(world, store, tasks) for store in STORES}
        for number in range(1, CHANGES + 1):
            await world.change(version(number))
            assert await world.ask() == number
            assert await world.ask("/check") == dict.fromkeys(MODES, "ok")
        for writer in writers.values():
            await writer.finish()
        rows = await world.ask("/rows")
        assert isinstance(rows, dict)
        for store, writer in writers.items():
            assert len(writer.acknowledged) >= CHANGES
            assert writer.acknowledged <= set(rows[store])
            assert len(rows[store]) == len(set(rows[store])), "a write was carried out twice"

    run(tmp_path, story)


SLOW = """
    import os, sys, threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if body == b"slow":
                print("begun", flush=True)
                while not os.path.exists("go"):
                    time.sleep(0.01)
            open("rows", "ab").write(body + b" ")
            self.do_GET()

        def do_GET(self):
            if self.path == "/slow":
                print("begun", flush=True)
                while "VERSION" == "1" and not os.path.exists("go"):
                    time.sleep(0.01)
                open("rows", "ab").write(b"slow ")
            rows = open("rows").read() if os.path.exists("rows") else ""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(('"VERSION ' + rows + '"').encode())

        def log_message(self, *args):
            pass

    START
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


def slow(number: int, *, start: str = "") -> str:
    return SLOW.replace("VERSION", str(number)).replace("START", start)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("fails", [False, True])
def test_a_write_that_takes_too_long_is_not_acknowledged_by_the_version_that_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr("agent.jobs.handover.WRITE_LIMIT_S", 0.1)

    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        await world.ask(body="first")
        replaced = Path(world.site.slot.folder)
        write = tasks.create_task(world.status(body="slow"))
        await until(lambda: "begun" in world.log)
        # With the latest data it can't start: the version before serves on, and so acknowledges.
        start = 'if "more" in open("rows").read(): sys.exit(1)' if fails else ""
        with contextlib.suppress(AssignmentFailed):
            await world.change(
                slow(2, start=start),
                meanwhile=lambda: (replaced / "rows").write_text("first more "),
            )
        (replaced / "go").touch()

        assert await write == (200 if fails else 503)
        rows = "1 first more slow " if fails else "2 first more "
        assert await world.ask() == rows

    run(tmp_path, story)


def test_a_late_write_that_is_answered_during_the_handover_waits_for_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next version lets it go on, then doesn't start: the write is kept, so it counts."""
    monkeypatch.setattr("agent.jobs.handover.WRITE_LIMIT_S", 0.1)
    start = """if os.path.exists("rows") and "more" in open("rows").read():
        open("../src/go", "w").close()
        while "slow" not in open("../src/rows").read():
            time.sleep(0.01)
        sys.exit(1)
    """

    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        await world.ask(body="first")
        shown = Path(world.site.slot.folder)
        write = tasks.create_task(world.status(body="slow"))
        await until(lambda: "begun" in world.log)
        with pytest.raises(AssignmentFailed, match="its users' latest data"):
            await world.change(
                slow(2, start=start),
                meanwhile=lambda: (shown / "rows").write_text("first more ") and None,
            )

        assert await write == 200
        assert await world.ask() == "1 first more slow "

    run(tmp_path, story)


@pytest.mark.parametrize("ends", ["answers", "is stopped", "stays"])
def test_a_get_that_takes_too_long_is_asked_again_of_the_version_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """It may write, too. `ends` says what comes of the version that it was asked of first."""
    monkeypatch.setattr("agent.serving.stage.GRACE_S", 0.1 if ends == "is stopped" else DEADLINE_S)

    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        await world.ask(body="first")
        replaced = Path(world.site.slot.folder)
        asked = tasks.create_task(world.ask("/slow"))
        await until(lambda: "begun" in world.log)
        start = 'if "more" in open("rows").read(): sys.exit(1)' if ends == "stays" else ""
        with contextlib.suppress(AssignmentFailed):
            await world.change(
                slow(2, start=start),
                meanwhile=lambda: (replaced / "rows").write_text("first more "),
            )
        if ends != "is stopped":
            (replaced / "go").touch()

        rows = f"{1 if ends == 'stays' else 2} first more slow "
        assert await asked == rows
        assert await world.ask() == rows
        assert world.log.count("begun") == (1 if ends == "stays" else 2)

    run(tmp_path, story)


def test_a_late_get_with_a_body_is_refused_since_the_body_is_gone(tmp_path: Path) -> None:
    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        replaced = Path(world.site.slot.folder)
        asked = tasks.create_task(world.status("query", path="/slow", method="GET"))
        await until(lambda: "begun" in world.log)
        await world.change(slow(2))
        (replaced / "go").touch()

        assert await asked == 503

    run(tmp_path, story)


def test_what_is_not_taken_over_is_said_in_the_apps_log(tmp_path: Path) -> None:
    async def story(world: World, _: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        for number in range(7):
            os.mkfifo(Path(world.site.slot.folder, f"pipe\n{number}"))
        await world.change(slow(2))

        said = [line for line in world.log if line.startswith("[agent]")]
        names = ", ".join(rf"'pipe\n{number}' (a pipe)" for number in range(5))
        assert said == [f"[agent] not taken over from the version before: {names}, 2 more"]

    run(tmp_path, story)


def test_an_app_whose_data_can_not_be_looked_at_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World, _: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        handover = Handover(world.stage, world.site, add_log=world.log.append)
        monkeypatch.setattr("agent.data.survey.ENTRIES_MAX", 1)
        with pytest.raises(AssignmentFailed) as too_much:
            await handover.check_room()
        assert too_much.value.code is FailureCode.NO_ROOM

        Path(world.site.slot.folder).rename(tmp_path / "away")
        with pytest.raises(AssignmentFailed, match="can't be copied: No such file or directory"):
            await handover.check_room()
        (tmp_path / "away").rename(world.site.slot.folder)

    run(tmp_path, story)


def test_what_was_delivered_and_written_to_stays_and_what_a_version_deletes_stays_away(
    tmp_path: Path,
) -> None:
    """`rows` is in the bundle: a command of the model made it, for example."""

    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(slow(1), files=["rows", "old.txt"])
        await world.ask(body="first")
        await world.change(slow(2))
        assert await world.ask() == "2 first "
        shown = world.site.slot.folder
        await world.change(slow(3), meanwhile=lambda: (Path(shown) / "rows").write_text("second "))
        assert await world.ask() == "3 second "
        (tmp_path / "work" / "old.txt").unlink()
        await world.change(slow(4))
        assert await world.ask() == "4 second "
        assert not (Path(world.site.slot.folder) / "old.txt").exists()

    run(tmp_path, story)


def test_a_write_under_way_is_waited_for_and_one_that_comes_then_is_answered_by_the_new_version(
    tmp_path: Path,
) -> None:
    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        await world.ask(body="first")
        writes: list[asyncio.Task[object]] = []

        async def write() -> None:
            writes.append(tasks.create_task(world.ask(body="slow")))
            await until(lambda: "begun" in world.log and world.site.is_held)
            writes.append(tasks.create_task(world.ask(body="held")))
            Path(world.slots[0].folder, "go").touch()

        def meanwhile() -> None:
            Path(world.slots[0].folder, "rows").write_text("second ")
            tasks.create_task(write())

        await world.change(slow(2), meanwhile=meanwhile)

        assert [await write for write in writes] == ["1 second slow ", "2 second slow held "]

    run(tmp_path, story)


def test_a_version_that_does_not_start_with_the_latest_data_leaves_the_one_before_and_its_visitors(
    tmp_path: Path,
) -> None:
    async def story(world: World, tasks: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        writes: list[asyncio.Task[object]] = []

        async def write_while_held() -> None:
            await until(lambda: world.site.is_held)
            writes.append(tasks.create_task(world.ask(body="held")))

        def meanwhile() -> None:
            Path(world.slots[0].folder, "rows").write_text("first ")
            tasks.create_task(write_while_held())

        refuses_data = slow(2, start="os.path.exists('rows') and sys.exit('bad rows')")
        with pytest.raises(AssignmentFailed, match="bad rows"):
            await world.change(refuses_data, meanwhile=meanwhile)

        assert [await write for write in writes] == ["1 first held "]
        assert not world.failures

    run(tmp_path, story)


def test_data_that_can_not_be_copied_leaves_the_version_before(tmp_path: Path) -> None:
    async def story(world: World, _: asyncio.TaskGroup) -> None:
        await world.change(slow(1))

        def meanwhile() -> None:
            """Make a folder where the next version has a file."""
            Path(world.slots[0].folder, "pages").mkdir()
            Path(world.slots[0].folder, "pages", "one").touch()

        with pytest.raises(AssignmentFailed, match="can't be copied: File exists"):
            await world.change(slow(2), files=["pages"], meanwhile=meanwhile)

        assert await world.ask() == "1 "
        assert not Path(world.slots[1].folder).exists()

    run(tmp_path, story)


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_change_that_comes_to_nothing_leaves_no_copy_of_the_data(
    tmp_path: Path, is_dropped: bool
) -> None:
    async def story(world: World, _: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        await world.ask(body="row")
        copy = Path(world.slots[1].folder, "rows")

        def give_up() -> None:
            assert copy.exists()
            if is_dropped:
                change.cancel()  # as another assignment does
            else:
                raise AssignmentFailed(FailureCode.GENERATION_FAILED, "given up")

        change = asyncio.create_task(world.change(slow(2), meanwhile=give_up))
        await asyncio.wait({change})

        assert change.cancelled() if is_dropped else change.exception()
        assert not copy.parent.exists()
        assert await world.ask(body="next") == "1 row next "

    run(tmp_path, story)


def test_an_app_that_has_written_nothing_since_the_try_is_not_started_again(
    tmp_path: Path,
) -> None:
    async def story(world: World, _: asyncio.TaskGroup) -> None:
        await world.change(slow(1))
        await world.ask(body="row")
        await world.change(slow(2, start="print('start of 2', flush=True)"))

        assert await world.ask() == "2 row "
        assert world.log.count("start of 2") == 1

    run(tmp_path, story)
