"""The apps of the runs, and the provider that writes them: no template can do what they do."""

from __future__ import annotations

import json

from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import MAX_DELAY_S, CallsTurn, Drip, TextTurn, ToolTurn

_SERVER = """
import http.server, os, signal, threading

VALUE = {"text": "nothing"}
KILLS_AFTER_S = %r

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer()

    def do_POST(self):
        VALUE["text"] = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer()

    def answer(self):
        body = VALUE["text"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

if KILLS_AFTER_S is not None:
    killing = threading.Timer(KILLS_AFTER_S, os.kill, [-1, signal.SIGKILL])  # the agent, too
    killing.start()
address = ("127.0.0.1", int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""
_KILLS_AFTER_S = 5.0


def write_counter(provider: MessagesApi, prompt: str) -> None:
    """Answer this prompt with an app that keeps a value in memory: POST sets it, GET returns it."""
    _write(provider, prompt, None)


def write_crasher(provider: MessagesApi, prompt: str) -> None:
    """Answer this prompt with an app that kills its agent five seconds after each start."""
    _write(provider, prompt, _KILLS_AFTER_S)


def write_for_ever(provider: MessagesApi, prompt: str, seconds: float) -> None:
    """Answer this prompt so slowly that the session is GENERATING for so many seconds."""
    text = "word " * (int(seconds / MAX_DELAY_S) * 20)
    provider.play_for(prompt, Drip(delay_s=MAX_DELAY_S, turn=TextTurn(text=text)))


def _write(provider: MessagesApi, prompt: str, kills_after_s: float | None) -> None:
    manifest = {"kind": "python", "title": "Value", "start": ["python", "main.py"]}
    files = {"spawn.json": json.dumps(manifest), "main.py": _SERVER % (kills_after_s,)}
    calls = [("write_file", {"path": path, "content": text}) for path, text in files.items()]
    provider.play_for(
        prompt, CallsTurn(calls=calls), ToolTurn(name="finish", input={"summary": "Done."})
    )
