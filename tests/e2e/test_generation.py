"""Generation with Claude, played by a local Messages API: apps, failures, and the API key."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.installation import Installation, installed
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import CallsTurn, Drip, ErrorTurn, Refusal, TextTurn, ToolTurn

SERVER = """
import http.server, os
handler = http.server.SimpleHTTPRequestHandler
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), handler).serve_forever()
"""
SHY_SERVER = """
import http.server, os

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers["Host"] == "localhost":
            super().do_GET()
        else:
            self.send_error(400)

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
SLOW_SERVER = """
import http.server, os, time

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        time.sleep(6)
        super().do_GET()

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
KEY = "a-test-key-that-must-not-leave-home"


@pytest.fixture(scope="module")
def provider() -> Iterator[MessagesApi]:
    with MessagesApi(key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def writer(provider: MessagesApi) -> Iterator[Installation]:
    settings = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": provider.url}
    with installed(
        **settings, SPAWN_DEPLOYING_TIMEOUT_S="24", SPAWN_PROVIDER_RETRY_S="2"
    ) as writer:
        yield writer


@pytest.mark.parametrize(
    "prompt",
    [
        "A page about tide pools",
        "A small python api with fastapi for bird sightings",
        "A node server that greets in five languages",
    ],
)
def test_an_app_without_a_template_is_generated_and_answers(
    writer: Installation, provider: MessagesApi, prompt: str
) -> None:
    provider.reset()
    session = writer.create(prompt)
    ready = writer.wait_for(session["session_id"], "ready", "failed", within_s=120)
    assert ready["status"] == "ready", (ready, writer.logs())
    assert ready["version"] == 1
    page = writer.call_app(ready["url"])
    assert page.status == 200
    assert "generating" in [phase["name"] for phase in ready["phases"]]
    source = writer.call(
        "GET", f"/api/sessions/{session['session_id']}/bundle?version=1", key=writer.operator_key
    )
    assert source.status == 200


def test_the_key_is_nowhere_in_the_sandbox(writer: Installation, provider: MessagesApi) -> None:
    provider.reset()
    session = writer.create("A page about lighthouses")
    writer.wait_for(session["session_id"], "ready", within_s=120)
    sandbox_id = writer.admin(f"sessions/{session['session_id']}")["sandbox"]["sandbox_id"]
    container = writer.sandboxes()[sandbox_id]
    script = (
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null;"
        " grep -rs must-not-leave-home /app /tmp /run; true"
    )
    code, output = container.exec_run(["sh", "-c", script])
    assert code == 0
    assert KEY.encode() not in output
    assert KEY not in str(container.attrs)


def test_a_refusal_fails_the_session_and_frees_the_slot(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.always(Refusal())
    session = writer.create("Something that no model should write")
    failed = writer.wait_for(session["session_id"], "ready", "failed", within_s=120)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "refused")
    live = writer.admin("pool")["sandboxes"]
    assert session["session_id"] not in {sandbox["session_id"] for sandbox in live}


def test_a_key_that_the_provider_refuses_has_its_own_error_code(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.always(ErrorTurn(status=401, type="authentication_error"))
    session = writer.create("A page about comets")
    failed = writer.wait_for(session["session_id"], "ready", "failed", within_s=120)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "provider_auth")


def test_an_overloaded_provider_costs_all_attempts_and_fails_the_session(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.always(ErrorTurn(status=529, type="overloaded_error"))
    session = writer.create("A page about meteors")
    failed = writer.wait_for(session["session_id"], "ready", "failed", within_s=180)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "provider_unavailable")
    assert failed["attempt"] == 3


def writes_server(title: str, code: str) -> CallsTurn:
    """The model writes a Python app of one file."""
    manifest = {"kind": "python", "title": title, "start": ["python", "main.py"]}
    return CallsTurn(
        calls=[
            ("write_file", {"path": "spawn.json", "content": json.dumps(manifest)}),
            ("write_file", {"path": "main.py", "content": code}),
        ]
    )


def await_answer(writer: Installation, prompt: str) -> None:
    """Start an app, and wait until it is READY. Then it answers."""
    session = writer.create(prompt)
    ready = writer.wait_for(session["session_id"], "ready", "failed", within_s=120)
    assert ready["status"] == "ready", (ready, writer.logs())
    assert writer.call_app(ready["url"]).status == 200


def test_an_app_that_crashes_at_first_is_repaired_and_answers(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.play(
        writes_server("Mended", "import no_such_library\n"),
        ToolTurn(name="finish", input={"summary": "Not yet."}),
        ToolTurn(name="write_file", input={"path": "main.py", "content": SERVER}),
        ToolTurn(name="finish", input={"summary": "Now it answers."}),
    )
    await_answer(writer, "A server that is mended")


def test_an_app_that_only_its_own_machine_may_open_is_repaired_before_anybody_sees_it(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.play(
        writes_server("Shy", SHY_SERVER),
        ToolTurn(name="finish", input={"summary": "Not yet."}),
        ToolTurn(name="write_file", input={"path": "main.py", "content": SERVER}),
        ToolTurn(name="finish", input={"summary": "Now everybody may."}),
    )
    before = len(provider.requests)
    await_answer(writer, "A server that is shy")
    told = str([request.body["messages"][-1] for request in provider.requests[before:]])
    assert "At its public address" in told
    assert "GET / answers 400" in told


def test_an_app_whose_first_page_takes_six_seconds_gets_ready(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.play(
        writes_server("Slow", SLOW_SERVER),
        ToolTurn(name="finish", input={"summary": "It takes its time."}),
    )
    await_answer(writer, "A server that thinks before it answers")


@pytest.mark.parametrize("process", ["api.server", "api.agents.server"])
def test_a_process_killed_during_an_answer_costs_no_attempt(
    writer: Installation, provider: MessagesApi, process: str
) -> None:
    provider.reset()
    provider.play(Drip(delay_s=0.5, turn=TextTurn(text="On and on and on. " * 200)))
    session = writer.create(f"A page about the northern lights, seen from {process}")
    provider.wait_for_requests(1, within_s=60)
    writer.kill(f"orchestrator.entrypoints.{process}")
    ready = writer.wait_for(session["session_id"], "ready", "failed", within_s=120)
    assert (ready["status"], ready["attempt"]) == ("ready", 1), (ready, writer.logs())
    assert writer.call_app(ready["url"]).status == 200


def test_an_app_that_never_answers_fails_with_its_last_lines_and_frees_its_slot(
    writer: Installation, provider: MessagesApi
) -> None:
    code = "import threading\nprint('waiting for nobody', flush=True)\nthreading.Event().wait()\n"
    manifest = '{"kind": "python", "title": "Deaf", "start": ["python", "main.py"]}'
    provider.play(
        CallsTurn(
            calls=[
                ("write_file", {"path": "spawn.json", "content": manifest}),
                ("write_file", {"path": "main.py", "content": code}),
            ]
        )
    )
    provider.always(ToolTurn(name="finish", input={"summary": "A server that listens."}))
    session = writer.create("A server that never listens")
    failed = writer.wait_for(session["session_id"], "ready", "failed", within_s=180)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "app_not_healthy")
    assert "waiting for nobody" in failed["error"]["message"]
    live = writer.admin("pool")["sandboxes"]
    assert session["session_id"] not in {sandbox["session_id"] for sandbox in live}
    logs = writer.call(
        "GET", f"/api/sessions/{session['session_id']}/logs", key=writer.operator_key
    ).json["lines"]
    assert any("waiting for nobody" in line["text"] for line in logs)
