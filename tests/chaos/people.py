"""The users of these tests: each has an API key of their own, and asks for apps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.installation import Installation
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import CallsTurn, ToolTurn, Turn

_READY_S = 480
# Its value lives in the memory of one process: after a restart it is another one.
_MEMORY = """
import http.server, os, secrets
VALUE = secrets.token_hex(16).encode()
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(VALUE)))
        self.end_headers()
        self.wfile.write(VALUE)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with a key."""

    spawn: Installation
    key: str

    def ask(self, template: str = "kanban", **fields: Any) -> str:
        """Ask for an app, again and again while the control plane answers 503. Its session's id."""
        body = {"prompt": "", **({} if "prompt" in fields else {"template": template}), **fields}
        response = self.spawn.call_patiently("POST", "/api/sessions", body, key=self.key)
        assert response.status == 202, (response.status, response.text, self.spawn.logs())
        return str(response.json["session_id"])

    def await_app(self, session_id: str) -> str:
        """Wait until the session is READY and its app answers. Returns its URL."""
        ready = self.spawn.wait_for(session_id, "ready", "failed", within_s=_READY_S)
        assert ready["status"] == "ready", (ready, self.spawn.logs())
        url = str(ready["url"])
        page = self.spawn.call_app(url)
        assert page.status == 200, (page.status, self.spawn.logs())
        return url

    def get_app(self, **fields: Any) -> str:
        """Ask for an app and wait until it answers. Returns its session's id."""
        session_id = self.ask(**fields)
        self.await_app(session_id)
        return session_id

    def end(self, *session_ids: str) -> None:
        """End these sessions. Returns when nothing is left of them."""
        for session_id in session_ids:
            path = f"/api/sessions/{session_id}"
            answer = self.spawn.call_patiently("DELETE", path, key=self.key)
            assert answer.status == 202, answer.text
        for session_id in session_ids:
            self.spawn.wait_for(session_id, "destroyed", "failed", within_s=_READY_S)


def make_user(spawn: Installation, name: str) -> User:
    response = spawn.call(
        "POST", "/api/admin/keys", {"name": name, "tier": "pro"}, key=spawn.operator_key
    )
    assert response.status == 201, response.text
    return User(spawn=spawn, key=response.json["key"])


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another user, with a running app that has a value in memory."""

    user: User
    session_id: str
    url: str
    value: str

    def check_app(self) -> None:
        """The app answers, and was not restarted."""
        page = self.user.spawn.call_app(self.url)
        assert (page.status, page.text) == (200, self.value), self.user.spawn.logs()

    def check_newcomer(self) -> None:
        """The user gets another app meanwhile, too, and ends it again."""
        session_id = self.user.get_app()
        self.check_app()
        self.user.end(session_id)


def settle_neighbour(spawn: Installation, model: MessagesApi, **fields: Any) -> Neighbour:
    """Another user's app, READY."""
    user = make_user(spawn, "neighbour")
    prompt = "A server that remembers its number"
    model.play_for(prompt, *memory_app())
    session_id = user.get_app(prompt=prompt, **fields)
    url = str(spawn.status(session_id)["url"])
    return Neighbour(user=user, session_id=session_id, url=url, value=spawn.call_app(url).text)


def memory_app() -> list[Turn]:
    """The model writes a program that has a value in memory."""
    manifest = '{"kind": "python", "title": "Memory", "start": ["python", "main.py"]}'
    return [
        CallsTurn(
            calls=[
                ("write_file", {"path": "spawn.json", "content": manifest}),
                ("write_file", {"path": "main.py", "content": _MEMORY}),
            ]
        ),
        ToolTurn(name="finish", input={"summary": "It remembers."}),
    ]
