"""Apps started in a sandbox that keeps a Python and a Node ready: real Docker, the real image."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.fakes.agents.home import FakeHome
from tests.integration.agent.world import SERVER, Host, Sandbox, bundle, python_app

TOLD = {
    "python": '''
        import json, os, resource, signal, stat, sys, threading
        from http.server import BaseHTTPRequestHandler, HTTPServer
        # As with fastapi, in front of which it has to see all of this.
        import __main__

        NAMES = [name for name in sys.path_importer_cache if "interpreters" in name]
        FILES = [stat.S_IFMT(os.fstat(fd).st_mode) for fd in range(3)]
        OPEN = sorted(os.listdir("/proc/self/fd"))
        PARENT = open(f"/proc/{os.getppid()}/cmdline").read()
        ROWS = ("SigB", "SigI", "SigC", "Cap")
        SEEN = {
            "argv": [sys.argv, sys.orig_argv, sys.executable, sys.path, repr(sys.flags), NAMES],
            "main": [repr(__main__), __name__, __file__, __spec__, sorted(vars(__main__))],
            "place": [os.getcwd(), dict(os.environ), sys.stdin.read(), FILES, OPEN],
            "parent": [PARENT, os.getsid(0) == os.getpid(), os.getuid(), os.umask(0o22)],
            "signals": [repr(signal.getsignal(each)) for each in sorted(signal.valid_signals())],
            "blocked": [row for row in open("/proc/self/status") if row.startswith(ROWS)],
            "limits": [resource.getrlimit(each) for each in range(16)],
            "score": open("/proc/self/oom_score_adj").read(),
            "threads": threading.active_count(),
        }

        class Page(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps([os.getpid(), SEEN]).encode())

        HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Page).serve_forever()
    ''',
    "node": '''
        const fs = require("node:fs");
        const seen = {
          argv: [process.argv, process.execArgv, process.execPath, process.argv0, process.title],
          main: [require.main === module, module.id, module.paths],
          place: [process.cwd(), process.env, fs.readFileSync(0, "utf8"), process.umask()],
          parent: [fs.readFileSync(`/proc/${process.ppid}/cmdline`, "utf8"), process.getuid()],
          stack: new Error("here").stack,
        };
        require("node:http")
          .createServer((_, answer) => answer.end(JSON.stringify([process.pid, seen])))
          .listen(Number(process.env.PORT), process.env.HOST);
    ''',
}  # fmt: skip
STARTS = {"python": ["python", "main.py", "a b"], "node": ["node", "main.js", "a b"]}
FRAMEWORKS = {
    "fastapi by python": (
        ["python", "main.py"],
        """
        import os, uvicorn
        from fastapi import FastAPI
        app = FastAPI()
        @app.get("/")
        def index(): return "alive"
        if __name__ == "__main__":
            uvicorn.run(app, host=os.environ["HOST"], port=int(os.environ["PORT"]))
        """,
    ),
    "fastapi by uvicorn": (
        ["uvicorn", "main:app", "--host", "$HOST", "--port", "$PORT"],
        """
        from fastapi import FastAPI
        app = FastAPI()
        @app.get("/")
        def index(): return "alive"
        """,
    ),
    "fastapi by -m uvicorn": (
        ["python", "-m", "uvicorn", "main:app", "--port", "$PORT"],
        """
        from fastapi import FastAPI
        app = FastAPI()
        @app.get("/")
        def index(): return "alive"
        """,
    ),
    "flask by flask run": (
        ["flask", "--app", "main", "run", "--port", "$PORT"],
        """
        from flask import Flask
        app = Flask(__name__)
        @app.get("/")
        def index(): return "alive"
        """,
    ),
    "flask by gunicorn": (
        ["gunicorn", "main:app", "--bind", "$HOST:$PORT"],
        """
        from flask import Flask
        app = Flask(__name__)
        @app.get("/")
        def index(): return "alive"
        """,
    ),
}


def waiting(home: FakeHome, host: Host, sandbox: Sandbox, kind: str) -> int:
    """The pid of the interpreter that waits, once there is one."""
    find = (
        f'for each in /proc/[0-9]*; do test "$(cat $each/comm)" = {kind} &&'
        " grep -q interpreters/ $each/cmdline && basename $each; done"
    )

    def pids() -> list[str]:
        host.rests()
        output = sandbox.container.exec_run(["sh", "-c", find], stderr=False).output
        return str(output.decode()).split()

    return int(home.wait_until(f"a {kind} that waits", pids)[0])


def bundle_of(kind: str, start: list[str], source: str) -> bytes:
    return bundle({"kind": kind, "start": start}, {start_file(kind): source})


def start_file(kind: str) -> str:
    return "main.py" if kind == "python" else "main.js"


@pytest.mark.parametrize("kind", ["python", "node"])
def test_an_app_sees_the_same_in_an_interpreter_that_waited_for_it(
    home: FakeHome, host: Host, sandbox: Sandbox, ready_sandbox: Sandbox, kind: str
) -> None:
    pid = waiting(home, host, ready_sandbox, kind)
    home.assign("a1", bundle=bundle_of(kind, STARTS[kind], TOLD[kind]))
    for each in (sandbox, ready_sandbox):
        home.wait_until("both apps", lambda each=each: each.get()[0] == 200)

    plain_pid, plain = json.loads(sandbox.get()[2])
    ready_pid, ready = json.loads(ready_sandbox.get()[2])

    assert ready == plain
    assert ready_pid == pid
    assert plain_pid != pid


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_app_of_each_framework_starts_in_the_python_that_waited(
    home: FakeHome, host: Host, ready_sandbox: Sandbox, name: str
) -> None:
    start, source = FRAMEWORKS[name]
    waiting(home, host, ready_sandbox, "python")
    home.assign("a1", bundle=bundle_of("python", start, source), start_timeout_s=60)
    home.wait_for_phase("ready")

    assert "alive" in ready_sandbox.get()[2]
    assert b'"interpreter_taken"' in ready_sandbox.container.logs()
    commands = ready_sandbox.commands()
    assert b"interpreters/python.py" in commands, "the app is what waited"
    assert b"uvicorn" not in commands
    assert b"gunicorn" not in commands


def test_no_interpreter_is_left_beside_the_app(
    home: FakeHome, host: Host, ready_sandbox: Sandbox
) -> None:
    waiting(home, host, ready_sandbox, "python")
    waiting(home, host, ready_sandbox, "node")
    home.assign("a1", bundle=bundle({"kind": "static"}, {"index.html": "mine"}))
    home.wait_for_phase("ready")

    home.wait_until("their end", lambda: b"interpreters/" not in ready_sandbox.commands())
    assert ready_sandbox.get()[2] == "mine"


def make_short_of_memory(host: Host, _: Sandbox, __: int) -> None:
    host.set_available(0.1)


def kill(_: Host, sandbox: Sandbox, pid: int) -> None:
    assert sandbox.container.exec_run(["sh", "-c", f"kill -9 {pid}"]).exit_code == 0


@pytest.mark.parametrize("end", [make_short_of_memory, kill])
def test_an_app_starts_plainly_when_no_interpreter_is_left(
    home: FakeHome, host: Host, ready_sandbox: Sandbox, end: Callable[[Host, Sandbox, int], None]
) -> None:
    pid = waiting(home, host, ready_sandbox, "python")
    end(host, ready_sandbox, pid)
    gone = f"! test -e /proc/{pid}"
    home.wait_until(
        "its end", lambda: not ready_sandbox.container.exec_run(["sh", "-c", gone]).exit_code
    )
    home.assign("a1", bundle=python_app(SERVER + "\n    server.serve_forever()"))
    home.wait_for_phase("ready")

    assert ready_sandbox.get()[2] == "alive"
    assert b"main.py" in ready_sandbox.commands()
