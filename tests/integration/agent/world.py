"""Shared by the tests of the agent in its container: the sandbox, and bundles."""

from __future__ import annotations

import http.client
import io
import json
import tarfile
import textwrap
from pathlib import Path

from docker.models.containers import Container

ROOT = Path(__file__).resolve().parents[3]
SLUG = "sandbox-slug"
OURS = "session-slug.apps.localhost:8080"


class Sandbox:
    """A running container, reached through its published port."""

    def __init__(self, container: Container) -> None:
        self.container = container
        container.reload()
        self.port = int(container.ports["3000/tcp"][0]["HostPort"])

    def get(
        self, path: str = "/", *, host: str = OURS, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers (lower case) and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers={"Host": host, **named})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return response.status, fields, response.read().decode()
        finally:
            connection.close()

    def commands(self) -> bytes:
        """The command lines of all processes."""
        read = "cat /proc/[0-9]*/cmdline"
        return bytes(self.container.exec_run(["sh", "-c", read]).output)


class Host:
    """What a sandbox reads of its host's memory and processors: they rest while `rests` is called.

    Docker lets files stand in for these of /proc; https://linuxcontainers.org/lxcfs uses it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._idle = 0
        self.set_available(0.9)
        self.rests()

    @property
    def volumes(self) -> dict[str, dict[str, str]]:
        return {
            str(self._folder / name): {"bind": f"/proc/{name}", "mode": "ro"}
            for name in ("meminfo", "stat")
        }

    def rests(self) -> None:
        self._idle += 100
        (self._folder / "stat").write_text(f"cpu  1 1 1 {self._idle} 1 1 1 1 1 1\n")

    def set_available(self, part: float) -> None:
        size = 1_000_000
        text = f"MemTotal: {size} kB\nMemAvailable: {round(size * part)} kB\n"
        (self._folder / "meminfo").write_text(text)


def bundle(manifest: dict[str, object], files: dict[str, str]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for path, content in {"spawn.json": json.dumps(manifest), **files}.items():
            raw = textwrap.dedent(content).encode()
            member = tarfile.TarInfo(path)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return output.getvalue()


def python_app(source: str) -> bytes:
    return bundle({"kind": "python", "start": ["python", "main.py"]}, {"main.py": source})


SERVER = """
    import os, threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"alive")

    server = HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page)
"""
