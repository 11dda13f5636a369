"""What the fake Messages API answers when no turn is scripted: it writes apps that run."""

import html
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam

from tests.contract.messages_api.sdk import BODY, HEADERS, ask, content


def app_in(message: Message) -> tuple[dict[str, Any], dict[str, str]]:
    """Manifest and files of the app that an answer writes."""
    call = message.content[-1]
    assert call.type == "tool_use"
    app: Any = call.input
    return app["manifest"], {file["path"]: file["content"] for file in app["files"]}


def test_default_script_echoes_the_prompt_when_it_has_no_tool(client: anthropic.Anthropic) -> None:
    assert "A kanban board" in str(content(ask(client, tools=())))


@pytest.mark.parametrize(
    ("prompt", "kind", "start"),
    [
        ("A <b>kanban</b> & board", "static", []),
        ("A capital nodes map", "static", []),
        ("An API for notes", "python", ["python", "main.py"]),
        ("a FastAPI service, not Node", "python", ["python", "main.py"]),
        ("A Node.js API for notes", "node", ["node", "server.js"]),
    ],
)
def test_default_script_writes_the_kind_of_app_that_the_prompt_names(
    client: anthropic.Anthropic, prompt: str, kind: str, start: list[str]
) -> None:
    message = ask(client, {"role": "user", "content": prompt}, streamed=True)
    manifest, files = app_in(message)
    assert message.stop_reason == "tool_use"
    assert manifest == {"kind": kind, "title": prompt, "start": start}
    page = files["index.html" if kind == "static" else "public/index.html"]
    assert f"<title>{html.escape(prompt)}</title>" in page
    assert f"<h1>{html.escape(prompt)}</h1>" in page
    assert start[1:] == [name for name in files if name in {"main.py", "server.js"}]


@pytest.mark.parametrize(("failed", "stop_reason"), [(False, "end_turn"), (True, "tool_use")])
def test_default_script_ends_after_a_good_tool_result_and_writes_again_after_a_bad_one(
    client: anthropic.Anthropic, failed: bool, stop_reason: str
) -> None:
    prompt: MessageParam = {"role": "user", "content": [{"type": "text", "text": "A <quiz>"}]}
    first = ask(client, prompt)
    call = first.content[-1]
    assert call.type == "tool_use"
    answer: MessageParam = {"role": "assistant", "content": first.content}
    result: MessageParam = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": "x", "is_error": failed}
        ],
    }
    second = ask(client, prompt, answer, result)
    assert second.stop_reason == stop_reason
    if failed:
        assert app_in(second) == app_in(first)


@pytest.mark.parametrize("prompt", ["A python <list>", "A node <list>"])
def test_server_app_of_the_default_script_runs_and_keeps_its_list(
    client: anthropic.Anthropic, tmp_path: Path, prompt: str
) -> None:
    manifest, files = app_in(ask(client, {"role": "user", "content": prompt}))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runtime = {"python": sys.executable}.get(manifest["start"][0], manifest["start"][0])
    environment = {"PORT": str(port), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    app = subprocess.Popen([runtime, *manifest["start"][1:]], cwd=tmp_path, env=environment)
    transport = httpx2.HTTPTransport(retries=8)  # backs off between attempts to connect
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", transport=transport) as web:
            page = web.get("/")
            assert page.headers["content-type"].startswith("text/html")
            assert f"<h1>{html.escape(prompt)}</h1>" in page.text
            assert "fetch(api" in web.get("/app.js").text
            assert web.get("/style.css").headers["content-type"].startswith("text/css")
            assert web.get("/api/items").json() == []
            web.put("/api/items", json=["milk"]).raise_for_status()
            assert web.get("/api/items").json() == ["milk"]
            assert web.get("/main.py").status_code == 404
    finally:
        app.terminate()
        app.wait(timeout=30)


def test_command_line_serves_on_the_port_that_it_prints_and_stops_on_a_signal() -> None:
    command = [sys.executable, "-m", "tests.fakes.llm.messages_api", "--port", "0", "--key", "k"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("listening on ").strip()
            for key, expected in (("k", 200), ("other", 401)):
                headers = HEADERS | {"x-api-key": key}
                answer = httpx2.post(
                    f"{url}/v1/messages", json=BODY, headers=headers, trust_env=False
                )
                assert answer.status_code == expected
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) in (0, -signal.SIGTERM)
        finally:
            server.kill()
