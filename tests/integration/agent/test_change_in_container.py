"""Changes of a running app: the next version runs beside the current one, then replaces it."""

from __future__ import annotations

import io
import itertools
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.contract.health import Condition, Finding
from tests.fakes.agents.home import FakeHome, wait_for
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import ErrorTurn, ToolTurn
from tests.integration.agent.world import SERVER, Sandbox, bundle, python_app

RATE_PER_S = 20
FINISH = ToolTurn(name="finish", input={"summary": "It says second now."})
FIRST = SERVER.replace("alive", "first") + "    server.serve_forever()\n"
SECOND = ToolTurn(
    name="edit_file",
    input={"path": "main.py", "old_text": 'b"first"', "new_text": 'b"second"'},
)
CONVERSATION = [
    {"role": "user", "text": "A page that says first"},
    {"role": "assistant", "text": "It says first."},
]


class Visitor:
    """Requests the page twenty times a second, each time in a thread. Keeps every answer."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._stop = threading.Event()
        self._requests: list[threading.Thread] = []
        self.answers: list[tuple[int, str]] = []

    @contextmanager
    def visiting(self) -> Iterator[None]:
        clock = threading.Thread(target=self._tick)
        clock.start()
        try:
            yield
        finally:
            self._stop.set()
            clock.join()
            for request in self._requests:
                request.join(timeout=30)

    def _tick(self) -> None:
        while not self._stop.wait(1 / RATE_PER_S):
            request = threading.Thread(target=self._ask)
            request.start()
            self._requests.append(request)

    def _ask(self) -> None:
        try:
            status, _, body = self._sandbox.get()
        except OSError as error:
            status, body = 0, str(error)
        self.answers.append((status, body))


def change(home: FakeHome, source: bytes, **fields: object) -> None:
    home.reports.clear()
    home.assign(
        "c1",
        bundle=source,
        kind="change",
        message="Say second",
        conversation=CONVERSATION,
        **fields,
    )


def test_a_change_replaces_the_running_app_without_a_failed_request(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    home.assign("a1", bundle=python_app(FIRST))
    home.wait_for_phase("ready")
    model.play(SECOND, ToolTurn(name="start_app", input={}), FINISH)
    visitor = Visitor(sandbox)
    with visitor.visiting():
        wait_for("answers of the first version", lambda: len(visitor.answers) > 10)
        change(home, python_app(FIRST))
        ready = home.wait_for_phase("ready")
        count = len(visitor.answers)
        wait_for("answers of the second version", lambda: len(visitor.answers) > count + 40)

    assert {status for status, _ in visitor.answers} == {200}
    assert {body for _, body in visitor.answers} == {"first", "second"}
    assert visitor.answers[-1] == (200, "second")
    assert ready["change"] == {"ok": True}
    assert ready["summary"] == "It says second now."
    assert home.story.index("upload") < home.story.index("ready", home.story.index("upload"))
    first = model.requests[0].body["messages"][0]["content"]
    request = "\n".join(block["text"] for block in first)
    for part in ("user: A page that says first", '<file path="main.py">', "Say second"):
        assert part in request
    wait_for("the end of the first version", lambda: sandbox.commands().count(b"main.py") == 1)


def test_a_change_that_never_gets_healthy_leaves_the_old_version_and_says_why(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    home.assign("a1", bundle=python_app(FIRST))
    home.wait_for_phase("ready")
    broken = {"path": "main.py", "content": "raise SystemExit('out of order')"}
    model.play(ToolTurn(name="write_file", input=broken))
    model.always(FINISH)
    change(home, python_app(FIRST))
    ready = home.wait_for_phase("ready")

    assert sandbox.get()[2] == "first"
    assert ready["change"]["ok"] is False
    assert ready["change"]["code"] == "app_not_healthy"
    assert "out of order" in ready["change"]["message"]
    assert ready["error"] is None
    assert not home.uploads
    assert len(home.unhealthy_uploads) == 1


def test_a_change_whose_data_does_not_fit_costs_no_call_and_leaves_the_room_to_the_app(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    fill = "    for name in 'abc': open(name, 'wb').write(bytes(50 << 20))\n"
    serve = "    server.serve_forever()\n"
    home.assign("a1", bundle=python_app(FIRST.replace(serve, fill + serve)))
    home.wait_for_phase("ready")
    change(home, python_app(FIRST))
    ready = home.wait_for_phase("ready")

    assert ready["change"]["code"] == "no_room"
    assert ready["change"]["message"].count(".") == 1
    assert not model.requests
    assert sandbox.get()[2] == "first"
    folders = sandbox.container.exec_run(["ls", "/app"]).output
    assert folders.split() == [b"group", b"passwd", b"src"]


def test_what_visitors_would_find_unwell_goes_back_to_the_model(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    home.assign("a1", bundle=python_app(FIRST))
    home.wait_for_phase("ready")
    findings = [Finding(condition=Condition.UNWELL, problem="GET / answers 400.")]
    home.walk = lambda _: findings.pop() if findings else Finding(condition=Condition.WELL)
    model.always(FINISH)
    change(home, python_app(FIRST))
    ready = home.wait_for_phase("ready")

    assert ready["change"] == {"ok": True}
    assert len(home.trials) == 2
    assert len({trial["secret"] for trial in home.trials}) == 2
    told = str(home.model_requests[-1]["messages"][-1])
    assert "At its public address" in told
    assert "GET / answers 400." in told


def test_a_provider_that_is_unavailable_leaves_the_old_version(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    home.assign("a1", bundle=python_app(FIRST))
    home.wait_for_phase("ready")
    model.always(ErrorTurn(retry_after=0.05))
    change(home, python_app(FIRST))
    ready = home.wait_for_phase("ready")

    assert (ready["change"]["code"], ready["change"]["permanent"]) == (
        "provider_unavailable",
        False,
    )
    assert sandbox.get()[2] == "first"


def test_a_change_after_a_loss_starts_the_current_version_first(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    model.play(SECOND, FINISH)
    change(home, python_app(FIRST))
    ready = home.wait_for_phase("ready")

    assert ready["change"] == {"ok": True}
    assert sandbox.get()[2] == "second"


@pytest.mark.parametrize(
    "kinds", [("python", "static"), ("static", "static"), ("static", "python")]
)
def test_a_restored_version_replaces_the_current_one_without_a_failed_request(
    home: FakeHome, sandbox: Sandbox, kinds: tuple[str, str]
) -> None:
    sources = []
    for name, kind in zip(("first", "second"), kinds, strict=True):
        page = bundle({"kind": "static"}, {"index.html": name})
        sources.append(page if kind == "static" else python_app(FIRST.replace("first", name)))
    home.assign("a1", bundle=sources[0])
    home.wait_for_phase("ready")
    home.reports.clear()
    visitor = Visitor(sandbox)
    with visitor.visiting():
        home.assign("a2", bundle=sources[1])
        home.wait_for_phase("ready")
        count = len(visitor.answers)
        wait_for("answers of the second version", lambda: len(visitor.answers) > count + 20)

    assert {status for status, _ in visitor.answers} == {200}
    assert visitor.answers[-1][1] == "second"


def test_a_restored_version_that_does_not_start_leaves_the_current_one(
    home: FakeHome, sandbox: Sandbox
) -> None:
    home.assign("a1", bundle=python_app(FIRST))
    home.wait_for_phase("ready")
    home.reports.clear()
    home.assign("a2", bundle=python_app("raise SystemExit(1)"))
    ready = home.wait_for_phase("ready")

    assert ready["change"]["code"] == "app_not_ready"
    assert sandbox.get()[2] == "first"


COUNTER = """
    import os
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            count = int(open("count").read()) if os.path.exists("count") else 0
            if self.path == "/up":
                open("count", "w").write(str(count + 1))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"first %d" % count)

    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


def test_files_that_the_app_made_survive_every_change_and_are_no_part_of_the_version(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    home.assign("a1", bundle=python_app(COUNTER))
    home.wait_for_phase("ready")
    for _ in range(3):
        sandbox.get("/up")
    words = ["first", "second", "third"]
    source = python_app(COUNTER)
    for number, (old, new) in enumerate(itertools.pairwise(words)):
        edit = {"path": "main.py", "old_text": f'b"{old} %d"', "new_text": f'b"{new} %d"'}
        model.play(ToolTurn(name="edit_file", input=edit), FINISH)
        home.reports.clear()
        home.assign(f"c{number}", bundle=source, kind="change", message=f"Say {new}")
        home.wait_for_phase("ready")
        source = home.uploads[-1]
        assert sandbox.get()[2] == f"{new} 3"

    with tarfile.open(fileobj=io.BytesIO(source)) as archive:
        assert sorted(archive.getnames()) == ["main.py", "spawn.json"]
    # A restored version is as it was made.
    home.reports.clear()
    home.assign("r1", bundle=python_app(COUNTER))
    home.wait_for_phase("ready")
    assert sandbox.get()[2] == "first 0"


def test_a_request_under_way_is_finished_by_the_version_that_it_began_with(
    home: FakeHome, sandbox: Sandbox
) -> None:
    slow = FIRST.replace(
        "self.send_response(200)",
        "import time; self.path == '/slow' and (print('begun', flush=True), time.sleep(4));"
        " self.send_response(200)",
    )
    home.assign("a1", bundle=python_app(slow))
    home.wait_for_phase("ready")
    answers: list[str] = []
    request = threading.Thread(target=lambda: answers.append(sandbox.get("/slow")[2]))
    request.start()
    home.wait_until(
        "the request's begin", lambda: any("begun" in report["logs"] for report in home.reports)
    )
    home.reports.clear()
    home.assign("a2", bundle=bundle({"kind": "static"}, {"index.html": "second"}))
    home.wait_for_phase("ready")
    assert sandbox.get()[2] == "second"
    request.join(timeout=30)

    assert answers == ["first"]


TREE = """
    import json, os, socket, stat
    from http.server import BaseHTTPRequestHandler, HTTPServer

    def make():
        os.remove("seeds.json")
        os.makedirs("data/empty")
        os.makedirs("locked/below")
        for name, mode in {"run.sh": 0o755, "private": 0o600, "locked/below/x": 0o400}.items():
            with open(name, "w") as file:
                file.write(name)
            os.chmod(name, mode)
            os.utime(name, (1_000_000_000, 1_000_000_000))
        with open("hole", "wb") as file:
            file.truncate(60 << 20)
        os.link("private", "data/same")
        os.symlink("../private", "data/link")
        os.symlink(os.path.abspath("private"), "data/full")
        os.symlink("/etc/hostname", "data/outside")
        open(b"data/\\xff\\n", "w").close()
        socket.socket(socket.AF_UNIX).bind("data/socket")
        os.chmod("locked", 0o500)

    def tree():
        answer = {}
        for folder, folders, files in os.walk("."):
            for name in folders + files:
                path = os.path.join(folder, name)
                info = os.lstat(path)
                if "__pycache__" in path or stat.S_ISSOCK(info.st_mode):
                    continue
                text = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
                is_own = path not in ("./main.py", "./spawn.json")
                time = int(info.st_mtime) if is_own else 0
                answer[ascii(path)] = [info.st_mode, info.st_nlink, info.st_blocks, time, text]
        return json.dumps(answer, sort_keys=True) + open("data/full").read()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/make":
                make()
            answer = tree() if self.path == "/tree" else "first"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *args):
            pass

    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


def test_a_change_keeps_all_that_an_app_has_made_in_its_folder(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    app = bundle(
        {"kind": "python", "start": ["python", "main.py"]},
        {"main.py": TREE, "seeds.json": "[]"},
    )
    home.assign("a1", bundle=app)
    home.wait_for_phase("ready")
    assert sandbox.get("/make")[0] == 200
    before = sandbox.get("/tree")[2].replace('"/app/src/private"', '"../private"')
    edit = {"path": "main.py", "old_text": '"first"', "new_text": '"second"'}
    model.play(ToolTurn(name="edit_file", input=edit), FINISH)
    change(home, app)
    home.wait_for_phase("ready")

    assert sandbox.get()[2] == "second"
    assert sandbox.get("/tree")[2] == before
    lines = [line for report in home.reports for line in report["logs"]]
    assert "[agent] not taken over from the version before: 'data/socket' (a socket)" in lines


DATABASE = """
    import os, sqlite3, threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    LOCK = threading.Lock()
    threading.stack_size(256 * 1024)
    DB = sqlite3.connect("rows.db", check_same_thread=False)
    DB.execute("PRAGMA journal_mode=WAL")
    with DB:
        if not DB.execute("SELECT * FROM sqlite_master").fetchall():
            DB.execute("CREATE TABLE rows (number INTEGER, fill TEXT)")
            DB.executemany("INSERT INTO rows VALUES (-1, ?)", [("x" * 4000,)] * 9000)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            words = self.path.strip("/").split("/")
            with LOCK, DB:
                answer = ["first"]
                if words[0] == "add":
                    DB.execute("INSERT INTO rows VALUES (?, ?)", (int(words[1]), "x" * 4000))
                elif words[0] == "rows":
                    answer = DB.execute("PRAGMA integrity_check").fetchone()
                    rows = DB.execute("SELECT number FROM rows WHERE number >= 0")
                    answer = [*answer, *(str(number) for number, in rows)]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(" ".join(answer).encode())

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 100

    Server(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


def test_a_change_takes_over_a_large_database_that_is_being_written_to(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    home.assign("a1", bundle=python_app(DATABASE))
    home.wait_for_phase("ready")
    model.play(
        ToolTurn(
            name="edit_file", input={"path": "main.py", "old_text": '"first"', "new_text": '"next"'}
        ),
        FINISH,
    )
    acknowledged: list[int] = []
    refused: list[int] = []
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            status = sandbox.get(f"/add/{number}")[0]
            (acknowledged if status == 200 else refused).append(number)
            if stop.wait(1 / RATE_PER_S):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for("the first writes", lambda: len(acknowledged) > 5)
        change(home, python_app(DATABASE))
        home.wait_for_phase("ready")
    finally:
        stop.set()
        writer.join(timeout=60)
    assert sandbox.get()[2] == "next"
    integrity, *rows = sandbox.get("/rows")[2].split()
    assert integrity == "ok"
    assert set(acknowledged) <= {int(number) for number in rows}
    assert not refused
