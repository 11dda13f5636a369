"""Apps that a scripted model writes with the agent's tools, in a real sandbox."""

from __future__ import annotations

import io
import json
import tarfile
import textwrap
from typing import Any

import pytest

from tests.fakes.agents.home import FakeHome
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import (
    CallsTurn,
    Cut,
    Drip,
    ErrorTurn,
    MalformedToolInput,
    Refusal,
    Stall,
    ToolTurn,
    Turn,
)
from tests.integration.agent.world import SERVER, Sandbox

FINISH = ToolTurn(name="finish", input={"summary": "It says alive."})
ALIVE = textwrap.dedent(SERVER) + "server.serve_forever()\n"
MANIFEST = {"kind": "python", "title": "Alive", "start": ["python", "main.py"]}


def write(path: str, content: object) -> tuple[str, dict[str, object]]:
    text = content if isinstance(content, str) else json.dumps(content)
    return "write_file", {"path": path, "content": text}


def python_turn(source: str, **more: Any) -> CallsTurn:
    return CallsTurn(calls=[write("spawn.json", MANIFEST), write("main.py", source)], **more)


def messages_of(home: FakeHome) -> list[str]:
    return [report["message"] for report in home.reports]


def results_of(model: MessagesApi) -> list[dict[str, Any]]:
    """The tool results that the model got, oldest first."""
    messages = model.requests[-1].body["messages"]
    return [
        block
        for message in messages
        if message["role"] == "user"
        for block in message["content"]
        if block["type"] == "tool_result"
    ]


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ("A page about tide pools", "static"),
        ("A python list of birds", "python"),
        ("A node list of trees", "node"),
    ],
)
def test_an_app_is_written_over_several_turns_and_serves(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi, wish: str, kind: str
) -> None:
    home.assign("g1", kind="generate", prompt=wish, model="claude-sonnet-5-5")
    ready = home.wait_for_phase("ready")

    assert f"<h1>{wish}</h1>" in sandbox.get()[2]
    assert sandbox.get("/style.css")[0] == 200
    assert ready["summary"].startswith("A canned app")
    assert ready["change"] is None
    assert home.story.index("model") < home.story.index("upload") < home.story.index("ready")
    progress = [report["progress"] for report in home.reports]
    assert progress == sorted(progress)
    assert set(progress[:-1]) <= set(range(31, 91))
    with tarfile.open(fileobj=io.BytesIO(home.uploads[0])) as archive:
        manifest = archive.extractfile("spawn.json")
        assert manifest is not None
        assert json.load(manifest)["kind"] == kind
    assert model.totals.calls == 3
    assert model.totals.cache_read_input_tokens > 0


def test_an_app_that_crashes_at_first_is_repaired(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    model.play(
        python_turn("import no_such_library", thinking="Some library will do."),
        FINISH,
        Drip(delay_s=0.05, turn=CallsTurn(calls=[write("main.py", ALIVE)], text="Not there? " * 9)),
        FINISH,
    )
    home.assign("g1", kind="generate", prompt="a page that says alive")
    ready = home.wait_for_phase("ready")

    assert sandbox.get()[2] == "alive"
    assert ready["summary"] == "It says alive."
    reason = "ModuleNotFoundError: No module named 'no_such_library'"
    (refused,) = [result for result in results_of(model) if result.get("is_error")]
    assert reason in refused["content"]
    assert any(message.startswith(f"fixing: {reason}") for message in messages_of(home))
    # Thinking goes back with its signature.
    thinking = model.requests[-1].body["messages"][1]["content"][0]
    assert (thinking["type"], bool(thinking["signature"])) == ("thinking", True)
    assert len(home.uploads) == 1


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            {"index.html": "<script src='app.js'></script>", "spawn.json": {"kind": "static"}},
            "/app.js, which / needs, answers 404",
        ),
        (
            {
                "index.html": "<link rel=stylesheet href=a/s.css>",
                "a/s.css": "body { background: url(../b.png) }",
                "spawn.json": {"kind": "static"},
            },
            "/b.png, which /a/s.css needs, answers 404",
        ),
        (
            {
                "main.py": "from fastapi import FastAPI\napp = FastAPI()\n"
                "@app.get('/')\ndef index():\n    return 1 / 0\n",
                "spawn.json": {
                    "kind": "python",
                    "start": ["uvicorn", "main:app", "--port", "$PORT"],
                },
            },
            "ZeroDivisionError: division by zero (GET / answers 500.)",
        ),
    ],
)
def test_bad_health_goes_back_three_times_and_then_the_app_is_given_up_but_kept(
    home: FakeHome,
    sandbox: Sandbox,
    model: MessagesApi,
    files: dict[str, object],
    reason: str,
) -> None:
    model.play(CallsTurn(calls=[write(path, content) for path, content in files.items()]))
    model.always(FINISH)
    home.assign("g1", kind="generate", prompt="something")
    failed = home.wait_for_phase("failed")

    assert failed["error"]["code"] == "app_not_healthy"
    assert failed["error"]["permanent"] is True
    assert reason in failed["error"]["message"]
    assert model.totals.calls == 5
    assert not home.uploads
    with tarfile.open(fileobj=io.BytesIO(home.unhealthy_uploads[0])) as archive:
        assert sorted(archive.getnames()) == sorted(files)
    assert home.story.index("upload") < home.story.index("failed")
    assert sandbox.get()[0] == 503


@pytest.mark.parametrize(  # the other ways to fail: tests/unit/agent/generator
    "turns",
    [
        (ErrorTurn(retry_after=0.1), ErrorTurn(status=500, type="api_error", retry_after=0.1)),
        (Cut(after_events=8, turn=python_turn(ALIVE)),),
        (Stall(after_events=6, pings=20, turn=python_turn(ALIVE)),),
        (ToolTurn(name="write_file", input={"path": "a", "content": "x" * 3_000_000}),),
    ],
)
def test_after_a_temporary_failure_of_the_model_the_app_still_runs(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi, turns: tuple[Turn, ...]
) -> None:
    wide: dict[str, Any] = {"max_tokens": 2_000_000, "limits": {"output_tokens": 2_000_000}}
    model.play(*turns, Drip(delay_s=0.01, turn=python_turn(ALIVE)), FINISH)
    home.assign("g1", kind="generate", prompt="a page that says alive", **wide)
    home.wait_for_phase("ready")

    assert sandbox.get()[2] == "alive"


def test_finished_calls_of_a_stream_that_was_cut_are_carried_out(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    first = python_turn(ALIVE)
    more = CallsTurn(calls=[*first.calls, write("never.txt", "x" * 2000)])
    model.play(Cut(after_events=60, turn=more), FINISH)
    home.assign("g1", kind="generate", prompt="a page that says alive")
    home.wait_for_phase("ready")

    assert sandbox.get()[2] == "alive"
    results = [result["content"] for result in results_of(model)]
    assert results == ["Wrote spawn.json.", "Wrote main.py."]
    assert "broke off" in model.requests[-1].body["messages"][-1]["content"][-1]["text"]


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        (Refusal(text="I'd rather not write that."), "refused"),
        (ErrorTurn(retry_after=0.05), "provider_unavailable"),
        (MalformedToolInput(), "generation_failed"),
    ],
)
def test_a_permanent_failure_of_the_model_is_reported_with_its_code(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi, turn: Turn, code: str
) -> None:
    model.always(turn)
    limits = {"seconds": 20}
    home.assign("g1", kind="generate", prompt="anything", limits=limits)
    failed = home.wait_for_phase("failed")

    assert failed["error"]["code"] == code
    assert failed["error"]["permanent"] is (code != "provider_unavailable")
    if code == "refused":
        assert failed["error"]["message"] == "I'd rather not write that."
    assert not home.uploads
    assert sandbox.commands().count(b"generator") == 0
