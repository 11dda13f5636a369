"""What the gateway adds to the time to the first byte of a streamed answer.

Provider, gateway and client are a process each, as in production; direct calls and calls through
the gateway take turns, so that the machine's moods hit them alike. Every call is authorized,
reserved in a SQLite store, and settled.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from orchestrator.adapters.sql_store import upgrade
from tests.fakes.llm.providers import ProviderFake
from tests.integration.gateway.world import BODY, gateway_for, settings_for

WARM_UP = 20
RUNS = 200
_ROOT = Path(__file__).parent.parent


class _At:
    """A provider somewhere else."""

    def __init__(self, url: str) -> None:
        self.url = url


def first_bytes() -> tuple[list[float], list[float]]:
    """Seconds to the first byte: direct calls, and calls through the gateway."""
    direct: list[float] = []
    through: list[float] = []
    with tempfile.TemporaryDirectory() as name, _process("provider") as (url,):
        folder = Path(name)
        with _process("gateway", str(folder), url) as (token,):
            uds = str(folder / "agent.sock")
            headers = {"x-api-key": token, "anthropic-version": "2023-06-01"}
            with (
                httpx2.Client(base_url=url, headers=headers) as straight,
                httpx2.Client(
                    transport=httpx2.HTTPTransport(uds=uds), base_url="http://home", headers=headers
                ) as around,
            ):
                for number in range(WARM_UP + RUNS):
                    for client, took in ((straight, direct), (around, through)):
                        took.append(_first_byte(client, f"question {number}"))
    return direct[WARM_UP:], through[WARM_UP:]


def _first_byte(client: httpx2.Client, question: str) -> float:
    body = {**BODY, "stream": True, "system": question}
    began = time.perf_counter()
    with client.stream("POST", "/v1/messages", json=body) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        took = time.perf_counter() - began
        assert answer.status_code == 200
        for _ in chunks:
            pass
    return took


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[list[str]]:
    """One of this module's own processes; yields the words that it says when it is ready."""
    command = [sys.executable, "-m", "bench.gateway", *arguments]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()
        finally:
            process.communicate(timeout=30)  # closes its standard input: it ends


def _serve(role: str, *arguments: str) -> None:
    if role == "provider":
        with ProviderFake() as provider:
            print(provider.url, flush=True)
            sys.stdin.read()
        return
    folder, url = Path(arguments[0]), arguments[1]
    migrated = folder / "migrated.db"
    upgrade.migrate(f"sqlite:///{migrated}")
    shutil.copy(migrated, folder / "store.db")
    with gateway_for(settings_for(folder, _At(url), log_level="error"), migrated) as world:
        print(world.token(world.session()), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
