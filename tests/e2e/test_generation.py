"""Claude, through a local server of the Messages API: an app is written with tools and answers."""

from __future__ import annotations

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
KEY = "a-test-key-that-must-not-leave-home"


@pytest.fixture(scope="module")
def provider() -> Iterator[MessagesApi]:
    with MessagesApi(key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def writer(provider: MessagesApi) -> Iterator[Installation]:
    settings = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": provider.url}
    with installed(**settings, SPAWN_DEPLOYING_TIMEOUT_S="24", SPAWN_PROVIDER_RETRY_S="2") as one:
        yield one


@pytest.mark.parametrize(
    "prompt",
    [
        "A page about tide pools",
        "A small python api with fastapi for bird sightings",
        "A node server that greets in five languages",
    ],
)
def test_a_prompt_without_a_template_is_written_and_answers(
    writer: Installation, provider: MessagesApi, prompt: str
) -> None:
    provider.reset()
    made = writer.create(prompt)
    ready = writer.wait_for(made["session_id"], "ready", "failed", within_s=120)
    assert ready["status"] == "ready", (ready, writer.logs())
    assert ready["version"] == 1
    page = writer.app(ready["url"])
    assert page.status == 200
    assert "generating" in [phase["name"] for phase in ready["phases"]]
    source = writer.call(
        "GET", f"/api/sessions/{made['session_id']}/bundle?version=1", key=writer.operator_key
    )
    assert source.status == 200


def test_the_key_is_nowhere_in_the_sandbox(writer: Installation, provider: MessagesApi) -> None:
    provider.reset()
    made = writer.create("A page about lighthouses")
    writer.wait_for(made["session_id"], "ready", within_s=120)
    box = writer.admin(f"sessions/{made['session_id']}")["sandbox"]
    container = next(
        one for one in writer.containers() if one.labels["ai.spawn.sandbox"] == box["sandbox_id"]
    )
    script = (
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null;"
        " grep -rs must-not-leave-home /app /tmp /run; true"
    )
    code, output = container.exec_run(["sh", "-c", script])
    assert code == 0
    assert KEY.encode() not in output
    assert KEY not in str(container.attrs)


def test_a_refusal_is_an_honest_failure_and_frees_the_slot(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.always(Refusal())
    made = writer.create("Something that no model should write")
    failed = writer.wait_for(made["session_id"], "ready", "failed", within_s=120)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "refused")
    live = writer.admin("pool")["sandboxes"]
    assert made["session_id"] not in {one["session_id"] for one in live}


def test_a_key_that_the_provider_refuses_is_said_by_name(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.always(ErrorTurn(status=401, type="authentication_error"))
    made = writer.create("A page about comets")
    failed = writer.wait_for(made["session_id"], "ready", "failed", within_s=120)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "provider_auth")


def test_an_overloaded_provider_costs_attempts_and_then_an_honest_failure(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.always(ErrorTurn(status=529, type="overloaded_error"))
    made = writer.create("A page about meteors")
    failed = writer.wait_for(made["session_id"], "ready", "failed", within_s=180)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "provider_unavailable")
    assert failed["attempt"] == 3


def test_an_app_that_crashes_at_first_is_mended_and_answers(
    writer: Installation, provider: MessagesApi
) -> None:
    manifest = '{"kind": "python", "title": "Mended", "start": ["python", "main.py"]}'
    provider.play(
        CallsTurn(
            calls=[
                ("write_file", {"path": "spawn.json", "content": manifest}),
                ("write_file", {"path": "main.py", "content": "import no_such_library\n"}),
            ]
        ),
        ToolTurn(name="finish", input={"summary": "Not yet."}),
        ToolTurn(name="write_file", input={"path": "main.py", "content": SERVER}),
        ToolTurn(name="finish", input={"summary": "Now it answers."}),
    )
    made = writer.create("A server that is mended")
    ready = writer.wait_for(made["session_id"], "ready", "failed", within_s=120)
    assert ready["status"] == "ready", (ready, writer.logs())
    assert writer.app(ready["url"]).status == 200


def test_an_api_that_is_killed_in_the_middle_of_an_answer_costs_no_attempt(
    writer: Installation, provider: MessagesApi
) -> None:
    provider.reset()
    provider.play(Drip(delay_s=0.5, turn=TextTurn(text="On and on and on. " * 200)))
    made = writer.create("A page about the northern lights")
    provider.wait_for_requests(1, within_s=60)
    writer.kill("orchestrator.entrypoints.api.server")
    ready = writer.wait_for(made["session_id"], "ready", "failed", within_s=120)
    assert (ready["status"], ready["attempt"]) == ("ready", 1), (ready, writer.logs())
    assert writer.app(ready["url"]).status == 200


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
    made = writer.create("A server that never listens")
    failed = writer.wait_for(made["session_id"], "ready", "failed", within_s=180)
    provider.reset()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "app_not_healthy")
    assert "waiting for nobody" in failed["error"]["message"]
    live = writer.admin("pool")["sandboxes"]
    assert made["session_id"] not in {one["session_id"] for one in live}
    logs = writer.call(
        "GET", f"/api/sessions/{made['session_id']}/logs", key=writer.operator_key
    ).json["lines"]
    assert any("waiting for nobody" in line["text"] for line in logs)
