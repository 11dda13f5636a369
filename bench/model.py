"""The scripted model in a process of its own, and what the same conversation takes without us.

`python -m bench.model FILE` serves canned answers, and writes each accepted request to FILE.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from orchestrator.entrypoints.demo.server import MessagesServer

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Model:
    """The process that serves, and the requests that it was sent."""

    url: str
    file: Path

    @property
    def settings(self) -> dict[str, str]:
        """The settings of an installation that asks this model."""
        return {
            "ANTHROPIC_API_KEY": "a-key",
            "ANTHROPIC_BASE_URL": self.url,
            "SPAWN_BUDGET_USER_USD": "1000",
            "SPAWN_BUDGET_DAY_USD": "1000",
        }

    def requests(self) -> Sequence[tuple[Mapping[str, str], Any]]:
        """Headers and body of each request so far, oldest first."""
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def replay(self, requests: Sequence[tuple[Mapping[str, str], Any]]) -> float:
        """Send the same requests directly, one after the other, and read the answers to their end.
        Returns the seconds that this takes: the model's own time of a conversation."""
        kept = ("anthropic-version", "anthropic-beta", "x-api-key")
        with httpx2.Client(base_url=self.url, trust_env=False, timeout=60) as client:
            started_at = time.perf_counter()
            for headers, body in requests:
                sent = {name: value for name, value in headers.items() if name in kept}
                with client.stream("POST", "/v1/messages", json=body, headers=sent) as response:
                    assert response.status_code == 200, response.status_code
                    for _ in response.iter_raw():
                        pass
            return time.perf_counter() - started_at


class _Recording(MessagesServer):
    """Writes down what it is sent."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def received(self, path: str, headers: Mapping[str, str], body: Any) -> None:
        if path == "/v1/messages":
            with self._file.open("a") as file:
                file.write(json.dumps([dict(headers), body]) + "\n")


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Model]:
    """Run the model in a process of its own."""
    file = folder / "requests.jsonl"
    file.touch()
    command = [sys.executable, "-m", "bench.model", str(file)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Model(url=process.stdout.readline().strip(), file=file)
        finally:
            process.terminate()


def _serve(file: Path) -> None:
    server = _Recording(file)
    print(server.url, flush=True)
    server.serve()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
