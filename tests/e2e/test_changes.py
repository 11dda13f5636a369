"""Changes of a running app: messages, versions, and requests to the app meanwhile."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.changes import (
    container_of,
    create_app,
    page,
    post,
    read,
    rewrite,
    server,
    wait_for_end,
)
from tests.e2e.installation import Installation, installed
from tests.e2e.steady import SteadyLoad, VisitedApp
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import (
    Drip,
    ErrorTurn,
    Refusal,
    TextTurn,
    ToolTurn,
)

KEY = "a-test-key-that-stays-with-the-gateway"


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


def test_a_message_changes_the_running_app_without_one_failed_request(
    writer: Installation, provider: MessagesApi
) -> None:
    app = create_app(writer, provider, "A counter of visits", server("grey"))
    change = [Drip(delay_s=0.05, turn=turn) for turn in server("blue")]
    provider.play_for("Change it as follows:\\n\\nmake it blue", *change)
    texts = ["<h1>grey</h1>", "<h1>blue</h1>"]
    with SteadyLoad(writer, [VisitedApp(url=app["url"], texts=texts)]) as visitors:
        visitors.wait(20)
        post(writer, app, "messages", {"text": "make it blue"})
        status = writer.wait_for(app["session_id"], "generating", within_s=30)
        assert (status["url"], status["ready"]) == (app["url"], False)
        assert status["change"]["text"] == "make it blue"
        message = wait_for_end(writer, app, 1)
        visitors.wait(120)
    assert (message["state"], message["version"], message["summary"]) == (
        "done",
        2,
        "It says blue.",
    )
    assert (visitors.failed, visitors.wrong) == ([], [])
    first_blue = visitors.texts.index(texts[1])
    assert visitors.texts[:first_blue] == [texts[0]] * first_blue
    assert set(visitors.texts[first_blue:]) == {texts[1]}, "nobody sees the old version again"
    after = writer.status(app["session_id"])
    assert (after["status"], after["url"], after["version"]) == ("ready", app["url"], 2)
    assert after["attempt"] == 1
    visits = int(writer.call_app(app["url"]).text.split()[-2])
    assert visits > visitors.count / 2, "the earlier visits are still counted"


def test_version_1_is_restored_and_the_conversation_goes_on(
    writer: Installation, provider: MessagesApi
) -> None:
    app = create_app(writer, provider, "A page that says morning", page("morning"))
    provider.play_for("noon please", *rewrite("morning", "noon"))
    post(writer, app, "messages", {"text": "noon please"})
    assert wait_for_end(writer, app, 1)["state"] == "done"
    assert "noon" in writer.call_app(app["url"]).text
    calls = len(provider.requests)
    with SteadyLoad(writer, [VisitedApp(url=app["url"], texts=["morning", "noon"])]) as visitors:
        post(writer, app, "versions/1/restore")
        restore = wait_for_end(writer, app, 2)
        visitors.wait(60)
    assert (restore["kind"], restore["state"], restore["version"]) == ("restore", "done", 1)
    assert (visitors.failed, visitors.wrong) == ([], [])
    assert "morning" in writer.call_app(app["url"]).text
    assert len(provider.requests) == calls, "a restore needs no model"

    provider.play_for("evening please", *rewrite("morning", "evening"))
    post(writer, app, "messages", {"text": "evening please"})
    third = wait_for_end(writer, app, 3)
    assert (third["state"], third["version"]) == ("done", 3)
    assert "evening" in writer.call_app(app["url"]).text
    conversation = provider.requests[-2].body["messages"][0]["content"][0]["text"]
    assert "user: A page that says morning" in conversation
    assert "assistant: It says noon." in conversation
    assert "user: Go back to version 1." in conversation
    versions = read(writer, app, "versions")["versions"]
    assert [
        (version["version"], version["running"], version["message"]) for version in versions
    ] == [
        (1, False, None),
        (2, False, 1),
        (3, True, 3),
    ]
    assert {version["provider"] for version in versions} == {"anthropic"}
    for version in versions:
        source = writer.call(
            "GET",
            f"/api/sessions/{app['session_id']}/bundle?version={version['version']}",
            key=writer.operator_key,
        )
        assert source.status == 200
    cost = read(writer, app, "usage")
    assert cost["calls"] == 6
    assert cost["cost_usd"] > 0


def test_a_failed_change_keeps_the_app_and_tells_the_reason(
    writer: Installation, provider: MessagesApi
) -> None:
    app = create_app(writer, provider, "A page that says steady", page("steady"))
    provider.play_for("something vile", Refusal(text="I won't do that."))
    broken = '<h1>steady</h1><script src="gone.js"></script>'
    provider.play_for(
        "add a script",
        ToolTurn(name="write_file", input={"path": "index.html", "content": broken}),
        *[ToolTurn(name="finish", input={"summary": "Added."})] * 4,
    )
    with SteadyLoad(writer, [VisitedApp(url=app["url"], texts=["steady"])]) as visitors:
        post(writer, app, "messages", {"text": "something vile"})
        refused = wait_for_end(writer, app, 1)
        post(writer, app, "messages", {"text": "add a script"})
        unhealthy = wait_for_end(writer, app, 2)
        visitors.wait(60)
    assert (refused["state"], refused["error"]["code"]) == ("failed", "refused")
    assert "I won't do that." in refused["error"]["message"]
    assert (unhealthy["state"], unhealthy["error"]["code"]) == ("failed", "app_not_healthy")
    assert "gone.js" in unhealthy["error"]["message"]
    assert (visitors.failed, visitors.wrong) == ([], [])
    after = writer.status(app["session_id"])
    assert (after["status"], after["version"], after["error"]) == ("ready", 1, None)
    assert "gone.js" not in writer.call_app(app["url"]).text
    versions = read(writer, app, "versions")["versions"]
    assert [(version["version"], version["healthy"]) for version in versions] == [
        (1, True),
        (2, False),
    ]
    refusal = writer.call(
        "POST",
        f"/api/sessions/{app['session_id']}/versions/2/restore",
        key=writer.operator_key,
    )
    assert (refusal.status, refusal.json["code"]) == (409, "version_not_healthy")


def test_messages_wait_for_their_turn_and_a_sixth_is_refused(
    writer: Installation, provider: MessagesApi
) -> None:
    app = create_app(writer, provider, "A page that says zero", page("zero"))
    provider.play_for("go to one", Drip(delay_s=0.4, turn=rewrite("zero", "one")[0]))
    provider.play_for("go to one", rewrite("zero", "one")[1])
    words = ["zero", "one", "two", "three", "four", "five", "six"]
    for before, after in itertools.pairwise(words[1:]):
        provider.play_for(f"go to {after}", *rewrite(before, after))
    post(writer, app, "messages", {"text": "go to one"})
    writer.wait_for(app["session_id"], "generating", within_s=30)
    for word in words[2:]:
        post(writer, app, "messages", {"text": f"go to {word}"})
    refused = writer.call(
        "POST",
        f"/api/sessions/{app['session_id']}/messages",
        {"text": "go to seven"},
        key=writer.operator_key,
    )
    assert (refused.status, refused.json["code"]) == (429, "messages_full")
    assert int(refused.headers["retry-after"]) > 0
    assert wait_for_end(writer, app, 6)["state"] == "done"
    messages = read(writer, app, "messages")["messages"]
    assert [message["state"] for message in messages] == ["done"] * 6
    assert "six" in writer.call_app(app["url"]).text
    assert writer.status(app["session_id"])["version"] == 7


def test_a_template_can_be_changed_and_restored(
    writer: Installation, provider: MessagesApi
) -> None:
    session = writer.create(template="pomodoro")
    app = writer.wait_for(session["session_id"], "ready", within_s=60)
    provider.play_for("say hello instead", *page("hello"))
    post(writer, app, "messages", {"text": "say hello instead"})
    assert wait_for_end(writer, app, 1)["version"] == 2
    assert "<h1>hello</h1>" in writer.call_app(app["url"]).text
    post(writer, app, "versions/1/restore")
    assert wait_for_end(writer, app, 2)["state"] == "done"
    assert "hello" not in writer.call_app(app["url"]).text


def test_a_change_survives_the_death_of_the_gateway(
    writer: Installation, provider: MessagesApi
) -> None:
    app = create_app(writer, provider, "A page that says before", page("before"))
    slow = Drip(delay_s=0.4, turn=TextTurn(text="On and on and on. " * 40))
    provider.play_for("now say after", slow, *rewrite("before", "after"))
    calls = len(provider.requests)
    post(writer, app, "messages", {"text": "now say after"})
    provider.wait_for_requests(calls + 1, within_s=60)
    writer.kill("orchestrator.entrypoints.api.agents.server")
    message = wait_for_end(writer, app, 1)
    assert (message["state"], message["version"]) == ("done", 2), (message, writer.logs())
    assert "after" in writer.call_app(app["url"]).text
    assert writer.status(app["session_id"])["attempt"] == 1


def test_a_change_survives_the_loss_of_its_sandbox(
    writer: Installation, provider: MessagesApi
) -> None:
    app = create_app(writer, provider, "A page that says old", page("old"))
    slow = Drip(delay_s=0.4, turn=TextTurn(text="On and on and on. " * 40))
    provider.play_for("now say new", slow, *rewrite("old", "new"))
    calls = len(provider.requests)
    post(writer, app, "messages", {"text": "now say new"})
    provider.wait_for_requests(calls + 1, within_s=60)
    container_of(writer, app).kill()
    message = wait_for_end(writer, app, 1)
    assert (message["state"], message["version"]) == ("done", 2), (message, writer.logs())
    assert "new" in writer.call_app(app["url"]).text
    after = writer.status(app["session_id"])
    assert (after["url"], after["status"]) == (app["url"], "ready")


def test_an_equal_prompt_reuses_the_earlier_app_unless_a_fresh_one_is_asked_for(
    writer: Installation, provider: MessagesApi
) -> None:
    prompt = "A page that says twice"
    first = create_app(writer, provider, prompt, page("twice"))
    calls = len(provider.requests)
    repeated = writer.create(f" {prompt}\n")
    ready = writer.wait_for(repeated["session_id"], "ready", within_s=60)
    assert (repeated["reused"], ready["url"] != first["url"]) == (True, True)
    assert "twice" in writer.call_app(ready["url"]).text
    assert len(provider.requests) == calls
    provider.play_for(prompt, *page("anew"))
    fresh = writer.create(prompt, fresh=True)
    ready = writer.wait_for(fresh["session_id"], "ready", within_s=60)
    assert (ready["reused"], "anew" in writer.call_app(ready["url"]).text) == (False, True)
    metrics = writer.call("GET", "/metrics").text
    hits = re.findall(r'^spawn_generation_cache_total{hit="yes",.*} (.*)$', metrics, re.MULTILINE)
    assert sum(map(float, hits)) == 1


def test_without_a_working_provider_a_session_fails_and_offers_a_template(
    writer: Installation, provider: MessagesApi
) -> None:
    prompt = "A kanban board with five hundred columns and a zebra"
    provider.play_for(prompt, *[ErrorTurn(status=401, type="authentication_error")] * 3)
    session = writer.create(prompt)
    failed = writer.wait_for(session["session_id"], "ready", "failed", within_s=120)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "provider_auth")
    assert "ANTHROPIC_API_KEY" in failed["error"]["message"]
    assert failed["offer"] == {"template": "kanban", "title": "Kanban board"}
    assert failed["attempt"] == 1


def test_the_key_is_nowhere_in_the_sandbox_while_the_model_writes(
    writer: Installation, provider: MessagesApi
) -> None:
    app = create_app(writer, provider, "A page that says secret", page("secret"))
    slow = Drip(delay_s=0.5, turn=TextTurn(text="On and on and on. " * 60))
    provider.play_for("look around", slow, *rewrite("secret", "public"))
    calls = len(provider.requests)
    post(writer, app, "messages", {"text": "look around"})
    provider.wait_for_requests(calls + 1, within_s=60)
    container = container_of(writer, app)
    commands = [_command_of(pid) for pid in _pids_of(container)]
    assert any("generator" in command for command in commands), commands
    memories = {pid: _memory(pid) for pid in _pids_of(container)}
    assert any(app["session_id"].encode() in memory for memory in memories.values())
    for pid, memory in memories.items():
        assert KEY.encode() not in memory, _command_of(pid)
        assert KEY.encode() not in _read(f"/proc/{pid}/environ")
        assert KEY.encode() not in _read(f"/proc/{pid}/cmdline")
    script = "grep -rlsF stays-with-the-gateway / --exclude-dir=proc --exclude-dir=sys; true"
    code, output = container.exec_run(["sh", "-c", script], user="0")
    assert (code, output) == (0, b"")
    assert KEY not in str(container.attrs)
    assert KEY not in str(container.image.history())
    wait_for_end(writer, app, 1)


def _pids_of(container: Any) -> list[int]:
    """The process numbers of a container on this machine."""
    rows = container.top(ps_args="-eo pid")["Processes"]
    return [int(row[0]) for row in rows]


def _command_of(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode()


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _memory(pid: int) -> bytes:
    """The contents of a process's writable memory."""
    parts = []
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            addresses, rights, *_ = line.split()
            begin, end = (int(address, 16) for address in addresses.split("-"))
            if not rights.startswith("rw") or begin >= 2**63:
                continue
            try:
                memory.seek(begin)
                parts.append(memory.read(end - begin))
            except OSError:
                continue  # a mapping without pages
    return b"".join(parts)
