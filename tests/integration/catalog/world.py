"""A built-in app in a copy of its folder, started as a sandbox would start it. For test_catalog_*.

The environment is the one that the agent gives (runtime-image/CONTRACT.md).
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

import orchestrator

CATALOG = Path(orchestrator.__file__).parent / "catalog"
DEADLINE_S = 60.0
SCRIPT = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


@dataclass(kw_only=True)
class App:
    """A copy of one template, and the server that runs in it."""

    folder: Path
    base: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> httpx2.Client:
        manifest = json.loads((self.folder / "spawn.json").read_text("utf-8"))
        port = _free_port()
        program = {"python": sys.executable, "node": node()}[manifest["start"][0]]
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8",
            "PORT": str(port), "HOST": "127.0.0.1", "PYTHONUNBUFFERED": "1",
            "NODE_ENV": "production",
        }  # fmt: skip
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [program, *manifest["start"][1:]],
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.base = f"http://127.0.0.1:{port}/"
        self._wait_until_it_answers(port)
        return httpx2.Client(base_url=self.base, timeout=DEADLINE_S)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def _wait_until_it_answers(self, port: int) -> None:
        assert self.process is not None
        ends_at = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            log = (self.folder / "log.txt").read_text()
            assert self.process.poll() is None, f"{self.folder.name} ended at its start: {log}"
            assert time.monotonic() < ends_at, f"{self.folder.name} never listened: {log}"
            time.sleep(0.02)


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[tuple[App, httpx2.Client]]:
    app = App(folder=Path(shutil.copytree(CATALOG / name, folder / name)))
    client = app.start()
    try:
        yield app, client
    finally:
        client.close()
        app.stop()


@contextlib.contextmanager
def served(name: str, folder: Path) -> Iterator[str]:
    """The address of any template: its own server, or a plain one for static files."""
    if (CATALOG / name / "index.html").exists():
        handler = functools.partial(QuietFiles, directory=str(CATALOG / name))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()
            thread.join(DEADLINE_S)
    else:
        with running(name, folder) as (app, _):
            yield app.base


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Tests have their own output."""


def node() -> str:
    found = shutil.which("node")
    assert found, "these tests need Node: apt install nodejs"
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
