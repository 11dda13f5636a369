"""Steps of the tests of changes: turns of the model, and requests to the session of an app."""

from __future__ import annotations

from typing import Any

from tests.e2e.installation import Installation, until
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import CallsTurn, ToolTurn, Turn

COUNTER = """
import http.server, os, pathlib
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        file = pathlib.Path("visits.txt")
        count = int(file.read_text() if file.exists() else 0) + 1
        file.write_text(str(count))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"<h1>HEADING</h1> {count} visits".encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


def page(text: str) -> list[Turn]:
    """The model writes a page."""
    manifest = '{"kind": "static", "title": "Page"}'
    return [
        CallsTurn(
            calls=[
                ("write_file", {"path": "spawn.json", "content": manifest}),
                ("write_file", {"path": "index.html", "content": f"<h1>{text}</h1>"}),
            ]
        ),
        ToolTurn(name="finish", input={"summary": f"It says {text}."}),
    ]


def rewrite(before: str, after: str) -> list[Turn]:
    """The model changes the text of that page."""
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


def create_app(writer: Installation, provider: MessagesApi, prompt: str, turns: list[Turn]) -> Any:
    """Create an app, and return its status when it is READY."""
    provider.play_for(prompt, *turns)
    session = writer.create(prompt)
    status = writer.wait_for(session["session_id"], "ready", "failed", within_s=120)
    assert status["status"] == "ready", (status, writer.logs())
    return status


def post(writer: Installation, app: Any, path: str, body: Any = None) -> Any:
    """POST to the app's session. Returns the new message."""
    target = f"/api/sessions/{app['session_id']}/{path}"
    response = writer.call_patiently("POST", target, body, key=writer.operator_key)
    assert response.status == 202, response.text
    return response.json["message"]


def read(writer: Installation, app: Any, path: str) -> Any:
    """GET from the app's session, as JSON."""
    target = f"/api/sessions/{app['session_id']}/{path}"
    response = writer.call_patiently("GET", target, key=writer.operator_key)
    assert response.status == 200, response.text
    return response.json


def wait_for_end(writer: Installation, app: Any, number: int, within_s: float = 120) -> Any:
    """Wait until the message is done or has failed, and return it."""

    def ended_message() -> Any:
        message = read(writer, app, "messages")["messages"][number - 1]
        return message if message["state"] in {"done", "failed"} else None

    return until(ended_message, within_s, f"message {number} to end")


def container_of(writer: Installation, app: Any) -> Any:
    sandbox_id = writer.admin(f"sessions/{app['session_id']}")["sandbox"]["sandbox_id"]
    return writer.sandboxes()[sandbox_id]
