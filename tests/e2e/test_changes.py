"""Follow-up messages to a running app, its versions, and what is served meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation, installed, until
from tests.e2e.steady import Steady, Visited
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import (
    CallsTurn,
    Drip,
    ErrorTurn,
    Refusal,
    TextTurn,
    ToolTurn,
    Turn,
)

KEY = "a-test-key-that-stays-with-the-gateway"
COUNTER = """
import http.server, os, pathlib
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen = pathlib.Path("seen.txt")
        count = int(seen.read_text() if seen.exists() else 0) + 1
        seen.write_text(str(count))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"<h1>HEADING</h1> {count} visits".encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[MessagesApi]:
    with MessagesApi(key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def writer(provider: MessagesApi) -> Iterator[Installation]:
    settings = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": provider.url}
    with installed(**settings, SPAWN_DEPLOYING_TIMEOUT_S="24", SPAWN_PROVIDER_RETRY_S="2") as one:
        yield one


def page(words: str) -> list[Turn]:
    """The model writes a page."""
    manifest = '{"kind": "static", "title": "Page"}'
    return [
        CallsTurn(
            calls=[
                ("write_file", {"path": "spawn.json", "content": manifest}),
                ("write_file", {"path": "index.html", "content": f"<h1>{words}</h1>"}),
            ]
        ),
        ToolTurn(name="finish", input={"summary": f"It says {words}."}),
    ]


def rewrite(before: str, after: str) -> list[Turn]:
    """The model changes the words of that page."""
    edit = {"path": "index.html", "old_text": before, "new_text": after}
    return [
        ToolTurn(name="edit_file", input=edit),
        ToolTurn(name="finish", input={"summary": f"It says {after}."}),
    ]


def server(heading: str) -> list[Turn]:
    """The model writes a program that counts its visits in a file."""
    manifest = '{"kind": "python", "title": "Counter", "start": ["python", "main.py"]}'
    code = COUNTER.replace("HEADING", heading)
    return [
        CallsTurn(
            calls=[
                ("write_file", {"path": "spawn.json", "content": manifest}),
                ("write_file", {"path": "main.py", "content": code}),
            ]
        ),
        ToolTurn(name="finish", input={"summary": f"It says {heading}."}),
    ]


def made(one: Installation, provider: MessagesApi, prompt: str, turns: list[Turn]) -> Any:
    """A READY app."""
    provider.play_for(prompt, *turns)
    session = one.create(prompt)
    ready = one.wait_for(session["session_id"], "ready", "failed", within_s=120)
    assert ready["status"] == "ready", (ready, one.logs())
    return ready


def ask(one: Installation, app: Any, path: str, body: Any = None) -> Any:
    """POST to the app's session."""
    target = f"/api/sessions/{app['session_id']}/{path}"
    answer = one.patient("POST", target, body, key=one.operator_key)
    assert answer.status == 202, answer.text
    return answer.json["message"]


def read(one: Installation, app: Any, path: str) -> Any:
    answer = one.patient("GET", f"/api/sessions/{app['session_id']}/{path}", key=one.operator_key)
    assert answer.status == 200, answer.text
    return answer.json


def ended(one: Installation, app: Any, number: int, within_s: float = 120) -> Any:
    """A message that is over."""

    def there() -> Any:
        message = read(one, app, "messages")["messages"][number - 1]
        return message if message["state"] in {"done", "failed"} else None

    return until(there, within_s, f"message {number} to be over")


def test_a_message_changes_the_running_app_without_one_failed_request(
    writer: Installation, provider: MessagesApi
) -> None:
    app = made(writer, provider, "A counter of visits", server("grey"))
    change = [Drip(delay_s=0.05, turn=turn) for turn in server("blue")]
    provider.play_for("Change it as follows:\\n\\nmake it blue", *change)
    words = ["<h1>grey</h1>", "<h1>blue</h1>"]
    with Steady(writer, [Visited(url=app["url"], words=words)]) as visitors:
        visitors.wait(20)
        ask(writer, app, "messages", {"text": "make it blue"})
        under_way = writer.wait_for(app["session_id"], "generating", within_s=30)
        assert (under_way["url"], under_way["ready"]) == (app["url"], False)
        assert under_way["change"]["text"] == "make it blue"
        over = ended(writer, app, 1)
        visitors.wait(120)
    assert (over["state"], over["version"], over["summary"]) == ("done", 2, "It says blue.")
    assert (visitors.failed, visitors.wrong) == ([], [])
    first_blue = visitors.seen.index(words[1])
    assert visitors.seen[:first_blue] == [words[0]] * first_blue
    assert set(visitors.seen[first_blue:]) == {words[1]}, "nobody goes back to the old one"
    after = writer.status(app["session_id"])
    assert (after["status"], after["url"], after["version"]) == ("ready", app["url"], 2)
    assert after["attempt"] == 1
    visits = int(writer.app(app["url"]).text.split()[-2])
    assert visits > visitors.count / 2, "the visits so far came along"


def test_version_1_comes_back_and_the_conversation_goes_on(
    writer: Installation, provider: MessagesApi
) -> None:
    app = made(writer, provider, "A page that says morning", page("morning"))
    provider.play_for("noon please", *rewrite("morning", "noon"))
    ask(writer, app, "messages", {"text": "noon please"})
    assert ended(writer, app, 1)["state"] == "done"
    assert "noon" in writer.app(app["url"]).text
    calls = len(provider.requests)
    with Steady(writer, [Visited(url=app["url"], words=["morning", "noon"])]) as visitors:
        ask(writer, app, "versions/1/restore")
        back = ended(writer, app, 2)
        visitors.wait(60)
    assert (back["kind"], back["state"], back["version"]) == ("restore", "done", 1)
    assert (visitors.failed, visitors.wrong) == ([], [])
    assert "morning" in writer.app(app["url"]).text
    assert len(provider.requests) == calls, "nobody had to be asked"

    provider.play_for("evening please", *rewrite("morning", "evening"))
    ask(writer, app, "messages", {"text": "evening please"})
    third = ended(writer, app, 3)
    assert (third["state"], third["version"]) == ("done", 3)
    assert "evening" in writer.app(app["url"]).text
    said = provider.requests[-2].body["messages"][0]["content"][0]["text"]
    assert "user: A page that says morning" in said
    assert "assistant: It says noon." in said
    assert "user: Go back to version 1." in said
    versions = read(writer, app, "versions")["versions"]
    assert [(one["version"], one["running"], one["message"]) for one in versions] == [
        (1, False, None),
        (2, False, 1),
        (3, True, 3),
    ]
    assert {one["provider"] for one in versions} == {"anthropic"}
    for one in versions:
        source = writer.call(
            "GET",
            f"/api/sessions/{app['session_id']}/bundle?version={one['version']}",
            key=writer.operator_key,
        )
        assert source.status == 200
    cost = read(writer, app, "usage")
    assert cost["calls"] == 6
    assert cost["cost_usd"] > 0


def test_a_change_that_fails_leaves_the_app_and_says_why(
    writer: Installation, provider: MessagesApi
) -> None:
    app = made(writer, provider, "A page that says steady", page("steady"))
    provider.play_for("something vile", Refusal(text="I won't do that."))
    broken = '<h1>steady</h1><script src="gone.js"></script>'
    provider.play_for(
        "add a script",
        ToolTurn(name="write_file", input={"path": "index.html", "content": broken}),
        *[ToolTurn(name="finish", input={"summary": "Added."})] * 4,
    )
    with Steady(writer, [Visited(url=app["url"], words=["steady"])]) as visitors:
        ask(writer, app, "messages", {"text": "something vile"})
        refused = ended(writer, app, 1)
        ask(writer, app, "messages", {"text": "add a script"})
        unhealthy = ended(writer, app, 2)
        visitors.wait(60)
    assert (refused["state"], refused["error"]["code"]) == ("failed", "refused")
    assert "I won't do that." in refused["error"]["message"]
    assert (unhealthy["state"], unhealthy["error"]["code"]) == ("failed", "app_not_healthy")
    assert "gone.js" in unhealthy["error"]["message"]
    assert (visitors.failed, visitors.wrong) == ([], [])
    after = writer.status(app["session_id"])
    assert (after["status"], after["version"], after["error"]) == ("ready", 1, None)
    assert "gone.js" not in writer.app(app["url"]).text
    versions = read(writer, app, "versions")["versions"]
    assert [(one["version"], one["healthy"]) for one in versions] == [(1, True), (2, False)]
    refusal = writer.call(
        "POST",
        f"/api/sessions/{app['session_id']}/versions/2/restore",
        key=writer.operator_key,
    )
    assert (refusal.status, refusal.json["code"]) == (409, "version_not_healthy")


def test_messages_wait_for_their_turn_and_a_sixth_is_sent_back(
    writer: Installation, provider: MessagesApi
) -> None:
    app = made(writer, provider, "A page that says zero", page("zero"))
    provider.play_for("go to one", Drip(delay_s=0.4, turn=rewrite("zero", "one")[0]))
    provider.play_for("go to one", rewrite("zero", "one")[1])
    words = ["zero", "one", "two", "three", "four", "five", "six"]
    for before, after in itertools.pairwise(words[1:]):
        provider.play_for(f"go to {after}", *rewrite(before, after))
    ask(writer, app, "messages", {"text": "go to one"})
    writer.wait_for(app["session_id"], "generating", within_s=30)
    for word in words[2:]:
        ask(writer, app, "messages", {"text": f"go to {word}"})
    refused = writer.call(
        "POST",
        f"/api/sessions/{app['session_id']}/messages",
        {"text": "go to seven"},
        key=writer.operator_key,
    )
    assert (refused.status, refused.json["code"]) == (429, "messages_full")
    assert int(refused.headers["retry-after"]) > 0
    assert ended(writer, app, 6)["state"] == "done"
    assert [one["state"] for one in read(writer, app, "messages")["messages"]] == ["done"] * 6
    assert "six" in writer.app(app["url"]).text
    assert writer.status(app["session_id"])["version"] == 7


def test_a_template_can_be_changed_and_had_back(
    writer: Installation, provider: MessagesApi
) -> None:
    session = writer.create(template="pomodoro")
    app = writer.wait_for(session["session_id"], "ready", within_s=60)
    provider.play_for("say hello instead", *page("hello"))
    ask(writer, app, "messages", {"text": "say hello instead"})
    assert ended(writer, app, 1)["version"] == 2
    assert "<h1>hello</h1>" in writer.app(app["url"]).text
    ask(writer, app, "versions/1/restore")
    assert ended(writer, app, 2)["state"] == "done"
    assert "hello" not in writer.app(app["url"]).text


def test_an_api_that_is_killed_during_a_change_costs_nothing(
    writer: Installation, provider: MessagesApi
) -> None:
    app = made(writer, provider, "A page that says before", page("before"))
    slow = Drip(delay_s=0.4, turn=TextTurn(text="On and on and on. " * 40))
    provider.play_for("now say after", slow, *rewrite("before", "after"))
    calls = len(provider.requests)
    ask(writer, app, "messages", {"text": "now say after"})
    provider.wait_for_requests(calls + 1, within_s=60)
    writer.kill("orchestrator.entrypoints.api.server")
    over = ended(writer, app, 1)
    assert (over["state"], over["version"]) == ("done", 2), (over, writer.logs())
    assert "after" in writer.app(app["url"]).text
    assert writer.status(app["session_id"])["attempt"] == 1


def test_a_sandbox_that_is_lost_during_a_change_comes_back_and_the_change_is_made(
    writer: Installation, provider: MessagesApi
) -> None:
    app = made(writer, provider, "A page that says old", page("old"))
    slow = Drip(delay_s=0.4, turn=TextTurn(text="On and on and on. " * 40))
    provider.play_for("now say new", slow, *rewrite("old", "new"))
    calls = len(provider.requests)
    ask(writer, app, "messages", {"text": "now say new"})
    provider.wait_for_requests(calls + 1, within_s=60)
    box = writer.admin(f"sessions/{app['session_id']}")["sandbox"]["sandbox_id"]
    for container in writer.containers():
        if container.labels["ai.spawn.sandbox"] == box:
            container.kill()
    over = ended(writer, app, 1)
    assert (over["state"], over["version"]) == ("done", 2), (over, writer.logs())
    assert "new" in writer.app(app["url"]).text
    after = writer.status(app["session_id"])
    assert (after["url"], after["status"]) == (app["url"], "ready")


def test_an_equal_prompt_is_served_from_the_earlier_app_until_a_fresh_one_is_asked_for(
    writer: Installation, provider: MessagesApi
) -> None:
    prompt = "A page that says twice"
    first = made(writer, provider, prompt, page("twice"))
    calls = len(provider.requests)
    again = writer.create(f" {prompt}\n")
    ready = writer.wait_for(again["session_id"], "ready", within_s=60)
    assert (again["reused"], ready["url"] != first["url"]) == (True, True)
    assert "twice" in writer.app(ready["url"]).text
    assert len(provider.requests) == calls
    provider.play_for(prompt, *page("anew"))
    fresh = writer.create(prompt, fresh=True)
    ready = writer.wait_for(fresh["session_id"], "ready", within_s=60)
    assert (ready["reused"], "anew" in writer.app(ready["url"]).text) == (False, True)
    metrics = writer.call("GET", "/metrics").text
    assert 'spawn_generation_cache_total{hit="yes"} 1.0' in metrics


def test_nobody_to_write_it_means_an_honest_failure_with_an_offer(
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


def test_the_key_is_nowhere_while_the_model_writes(
    writer: Installation, provider: MessagesApi
) -> None:
    app = made(writer, provider, "A page that says secret", page("secret"))
    slow = Drip(delay_s=0.5, turn=TextTurn(text="On and on and on. " * 60))
    provider.play_for("look around", slow, *rewrite("secret", "found"))
    calls = len(provider.requests)
    ask(writer, app, "messages", {"text": "look around"})
    provider.wait_for_requests(calls + 1, within_s=60)
    box = writer.admin(f"sessions/{app['session_id']}")["sandbox"]["sandbox_id"]
    container = next(one for one in writer.containers() if one.labels["ai.spawn.sandbox"] == box)
    names = [_name_of(process) for process in _processes(container)]
    assert any("generator" in name for name in names), names
    memories = {process: _memory(process) for process in _processes(container)}
    assert any(app["session_id"].encode() in memory for memory in memories.values())
    for process, memory in memories.items():
        assert KEY.encode() not in memory, _name_of(process)
        assert KEY.encode() not in _read(f"/proc/{process}/environ")
        assert KEY.encode() not in _read(f"/proc/{process}/cmdline")
    script = "grep -rlsF stays-with-the-gateway / --exclude-dir=proc --exclude-dir=sys; true"
    code, output = container.exec_run(["sh", "-c", script], user="root")
    assert (code, output) == (0, b"")
    assert KEY not in str(container.attrs)
    assert KEY not in str(container.image.history())
    ended(writer, app, 1)


def _processes(container: Any) -> list[int]:
    """Of a container, by their numbers on this machine."""
    rows = container.top(ps_args="-eo pid")["Processes"]
    return [int(row[0]) for row in rows]


def _name_of(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode()


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _memory(pid: int) -> bytes:
    """All that a process has in its writable memory."""
    found = []
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            begin, end = (int(one, 16) for one in place.split("-"))
            if not rights.startswith("rw") or begin >= 2**63:
                continue
            try:
                memory.seek(begin)
                found.append(memory.read(end - begin))
            except OSError:
                continue  # a mapping without pages
    return b"".join(found)
