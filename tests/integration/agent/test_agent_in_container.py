"""The runtime image with its agent, as a sandbox runs it: real Docker, a fake home on a socket."""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from websockets.sync.client import connect

from tests.fakes.agents.home import SANDBOX_TOKEN, SESSION_TOKEN, FakeHome, wait_for
from tests.integration.agent.world import OURS, SERVER, SLUG, Sandbox, bundle, python_app


def test_a_warm_agent_dials_home_without_waiting_and_then_polls(
    home: FakeHome, sandbox: Sandbox
) -> None:
    home.wait_until("a second poll", lambda: len(home.polls) >= 2)

    assert [poll["wait"] for poll in home.polls[:2]] == ["0", "25"]
    assert sandbox.get(host=f"{SLUG}.apps.localhost")[0] == 404


@pytest.mark.parametrize(
    "command",
    [
        ["node", "-p", "os.userInfo().username + ' ' + os.userInfo().homedir"],
        [
            *("/opt/python/bin/python", "-c"),
            "import grp, os, pwd; user = pwd.getpwuid(os.getuid());"
            "print(grp.getgrgid(os.getgid()).gr_name, user.pw_dir)",
        ],
    ],
)
def test_the_user_of_a_sandbox_has_a_name(
    home: FakeHome, sandbox: Sandbox, command: list[str]
) -> None:
    home.wait_until("a poll", lambda: home.polls)

    assert sandbox.container.exec_run(command) == (0, b"app /tmp\n")


def test_a_request_for_another_host_is_misdirected(home: FakeHome, sandbox: Sandbox) -> None:
    home.assign("a1", bundle=bundle({"kind": "static"}, {"index.html": "mine"}))
    home.wait_for_phase("ready")

    assert sandbox.get()[0] == 200
    assert sandbox.get(host="another-slug.apps.localhost:8080")[0] == 421
    assert sandbox.get("/_lib/pico.min.css", host="another-slug.apps.localhost")[0] == 421


def test_a_static_app_is_served_with_types_validators_and_its_own_404_page(
    home: FakeHome, sandbox: Sandbox
) -> None:
    files = {
        "index.html": "<h1>hello</h1>",
        "style.css": "h1 { color: teal }",
        "docs/index.html": "the docs",
        "404.html": "lost",
        ".secret": "hidden",
    }
    home.assign("a1", bundle=bundle({"kind": "static"}, files))
    home.wait_for_phase("ready")

    status, headers, body = sandbox.get()
    assert (status, body) == (200, "<h1>hello</h1>")
    assert sandbox.get(If_None_Match=headers["etag"])[0] == 304
    assert sandbox.get("/style.css")[1]["content-type"] == "text/css; charset=utf-8"
    assert sandbox.get("/docs/")[2] == "the docs"
    assert sandbox.get("/docs")[1]["location"] == "./docs/"
    assert sandbox.get("/.secret")[0] == 404
    assert sandbox.get("/nowhere")[2] == "lost"
    assert "max-age" in sandbox.get("/_lib/alpine.min.js")[1]["cache-control"]
    assert home.reports[-1]["progress"] == 100
    assert not home.uploads


def test_a_fastapi_app_answers_requests_and_websockets(home: FakeHome, sandbox: Sandbox) -> None:
    source = """
        from fastapi import FastAPI, Request, WebSocket

        app = FastAPI()

        @app.get("/")
        def index():
            return {"hello": "from fastapi"}

        @app.post("/echo")
        async def echo(request: Request):
            return {"length": len(await request.body()), "close": request.headers["connection"]}

        @app.websocket("/ws")
        async def repeat(socket: WebSocket):
            await socket.accept()
            while True:
                await socket.send_text("you said " + await socket.receive_text())
    """
    start = ["uvicorn", "main:app", "--host", "$HOST", "--port", "$PORT"]
    home.assign("a1", bundle=bundle({"kind": "python", "start": start}, {"main.py": source}))
    home.wait_for_phase("ready")

    assert json.loads(sandbox.get()[2]) == {"hello": "from fastapi"}
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=30)
    connection.request("POST", "/echo", body=b"x" * 300_000, headers={"Host": OURS})
    assert json.loads(connection.getresponse().read()) == {"length": 300_000, "close": "close"}
    connection.close()
    connected = socket.create_connection(("127.0.0.1", sandbox.port))
    with connect(f"ws://{OURS}/ws", sock=connected) as websocket:
        websocket.send("one")
        websocket.send("two")
        assert [websocket.recv(10), websocket.recv(10)] == ["you said one", "you said two"]
    assert any("Uvicorn running" in line for report in home.reports for line in report["logs"])


def test_an_express_app_finds_its_libraries_by_import_and_by_require(
    home: FakeHome, sandbox: Sandbox
) -> None:
    files = {
        "server.mjs": """
            import express from "express";
            import { createRequire } from "node:module";
            const { marked } = createRequire(import.meta.url)("marked");
            import { WebSocketServer } from "ws";

            const app = express();
            app.set("view engine", "ejs");
            app.get("/", (request, response) =>
                response.render("index", { html: marked("# hi"), ws: typeof WebSocketServer }));
            app.listen(process.env.PORT, process.env.HOST);
        """,
        "views/index.ejs": "<%- html %><%= ws %>",
    }
    manifest: dict[str, object] = {"kind": "node", "start": ["node", "server.mjs"]}
    home.assign("a1", bundle=bundle(manifest, files))
    home.wait_for_phase("ready")

    status, _, body = sandbox.get()
    assert status == 200
    assert body.replace("\n", "") == "<h1>hi</h1>function"
    assert "Alpine" in sandbox.get("/_lib/alpine.min.js")[2]


def test_a_crashing_app_is_restarted_and_then_given_up(home: FakeHome, sandbox: Sandbox) -> None:
    source = (
        SERVER
        + """
    print("up and running", flush=True)
    server.handle_request()
    print("falling over", flush=True)
    os._exit(3)
    """
    )
    home.assign("a1", bundle=python_app(source))
    home.wait_for_phase("ready")
    failed = home.wait_for_phase("failed")

    assert failed["error"]["code"] == "app_crashed"
    assert failed["error"]["permanent"] is True
    assert "exited with status 3" in failed["error"]["message"]
    assert failed["error"]["message"].endswith("falling over")
    lines = [line for report in home.reports for line in report["logs"]]
    assert lines.count("up and running") == 5
    assert [report["seq"] for report in home.reports] == list(range(1, len(home.reports) + 1))
    assert sandbox.get()[0] == 503


def test_an_app_that_never_answers_is_not_ready_and_says_why(
    home: FakeHome, sandbox: Sandbox
) -> None:
    source = """
        import threading
        print("waiting for a database that is not there", flush=True)
        threading.Event().wait()
    """
    home.assign("a1", bundle=python_app(source), start_timeout_s=1.5)
    failed = home.wait_for_phase("failed")

    assert failed["error"]["code"] == "app_not_ready"
    assert "within 1.5 s" in failed["error"]["message"]
    assert failed["error"]["message"].endswith("waiting for a database that is not there")


def test_an_app_that_exits_during_its_start_fails_with_its_traceback(
    home: FakeHome, sandbox: Sandbox
) -> None:
    home.assign("a1", bundle=python_app("import no_such_library"))
    failed = home.wait_for_phase("failed")

    assert failed["error"]["code"] == "app_not_ready"
    assert failed["error"]["message"].endswith("No module named 'no_such_library'")


def test_a_bundle_that_reaches_outside_is_refused(home: FakeHome, sandbox: Sandbox) -> None:
    home.assign("a1", bundle=bundle({"kind": "static"}, {"../../tmp/evil": "x"}))
    failed = home.wait_for_phase("failed")

    assert failed["error"]["code"] == "bundle_invalid"
    assert "'..' is not allowed" in failed["error"]["message"]


def test_no_secret_is_in_the_environment_or_arguments_of_any_process(
    home: FakeHome, sandbox: Sandbox
) -> None:
    home.assign("a1", bundle=python_app(SERVER + "    server.serve_forever()\n"))
    home.wait_for_phase("ready")

    read = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; env"
    output = sandbox.container.exec_run(["sh", "-c", read]).output
    assert b"main.py" in output
    assert b"NODE_ENV=production" in output
    assert SANDBOX_TOKEN.encode() not in output
    assert SESSION_TOKEN.encode() not in output


def test_a_new_assignment_replaces_the_running_app(home: FakeHome, sandbox: Sandbox) -> None:
    home.assign("a1", bundle=python_app(SERVER + "    server.serve_forever()\n"))
    home.wait_for_phase("ready")
    assert sandbox.get()[2] == "alive"
    home.reports.clear()

    home.assign("a2", bundle=bundle({"kind": "static"}, {"index.html": "second"}))
    home.wait_for_phase("ready")

    assert sandbox.get()[2] == "second"
    assert home.reports[0]["seq"] == 1
    wait_for("the end of the first app", lambda: b"main.py" not in sandbox.commands())


def test_an_agent_survives_a_restart_of_home_and_keeps_its_app(
    home: FakeHome, sandbox: Sandbox
) -> None:
    home.assign("a1", bundle=bundle({"kind": "static"}, {"index.html": "still here"}))
    home.wait_for_phase("ready")
    home.wait_until("a poll with the app", lambda: home.polls[-1].get("have") == "a1")

    home.stop()
    assert sandbox.get()[2] == "still here"
    home.polls.clear()
    home.start()
    home.wait_until("a poll of the new home", lambda: home.polls)

    assert home.polls[0]["have"] == "a1"
    assert sandbox.get()[2] == "still here"


def test_a_sandbox_that_home_no_longer_wants_ends_by_itself(
    home: FakeHome, sandbox: Sandbox
) -> None:
    home.assign("a1", bundle=python_app(SERVER + "    server.serve_forever()\n"))
    home.wait_for_phase("ready")
    home.dismiss()

    assert sandbox.container.wait(timeout=30)["StatusCode"] == 0


def test_a_stop_ends_agent_and_app_without_being_killed(home: FakeHome, sandbox: Sandbox) -> None:
    stubborn = SERVER.replace("import os,", "import os, signal,") + (
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    server.serve_forever()\n"
    )
    home.assign("a1", bundle=python_app(stubborn))
    home.wait_for_phase("ready")
    sandbox.container.stop(timeout=20)

    # 137 would be Docker's kill after the 20 s.
    assert sandbox.container.wait(timeout=30)["StatusCode"] == 0


def test_the_page_of_a_starting_app_asks_to_come_back(home: FakeHome, sandbox: Sandbox) -> None:
    source = """
        import threading
        threading.Event().wait()
    """
    home.assign("a1", bundle=python_app(source), start_timeout_s=60.0)
    home.wait_for_phase("deploying")
    status, headers, _ = wait_for(
        "the page of a starting app",
        lambda: answer if (answer := sandbox.get())[0] == 503 else None,
    )

    assert status == 503
    assert headers["retry-after"] == "1"
