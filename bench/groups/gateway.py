"""The time that the gateway adds to the first byte of a streamed answer.

The provider, the gateway and the client are separate processes, as in production. Direct calls and
calls through the gateway take turns, so that the machine's load affects both alike. Each call is
authorized, reserved in a SQLite store, and settled.
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

from bench.measure import Limit, Row, Section, p50, percentile, targets
from orchestrator.adapters.sql_store import upgrade
from tests.fakes.llm.providers import ProviderFake
from tests.integration.gateway.world import BODY, gateway_for, settings_for

WARM_UP = 20
RUNS = 200
SESSIONS = 4  # they take turns: one alone may not make that many calls a second
_ROOT = Path(__file__).parents[2]


class _RemoteProvider:
    """A provider in another process."""

    def __init__(self, url: str) -> None:
        self.url = url


def measure() -> Section:
    """The time that the gateway adds: as an amount and not as a ratio, since so is the target."""
    direct, through = first_bytes()
    added_s = {
        share: percentile(through, share) - percentile(direct, share) for share in (0.5, 0.95)
    }
    target, met = targets(Limit(text="p50 < 5 ms", figure=added_s[0.5] * 1000, most=5))
    row = Row(
        name="added by the gateway to the first byte of an answer (in turn with direct calls:"
        f" {p50(direct) * 1000:.1f} ms)",
        p50=f"{added_s[0.5] * 1000:.1f} ms",
        p95=f"{added_s[0.95] * 1000:.1f} ms",
        target=target,
        met=met,
    )
    return Section(rows=[row])


def first_bytes() -> tuple[list[float], list[float]]:
    """Seconds to the first byte: direct calls, and calls through the gateway."""
    direct: list[float] = []
    through: list[float] = []
    with tempfile.TemporaryDirectory() as name, _process("provider") as (url,):
        folder = Path(name)
        with _process("gateway", str(folder), url) as tokens:
            uds = str(folder / "agent.sock")
            headers = {"anthropic-version": "2023-06-01"}
            with (
                httpx2.Client(base_url=url, headers=headers) as direct_client,
                httpx2.Client(
                    transport=httpx2.HTTPTransport(uds=uds), base_url="http://home", headers=headers
                ) as gateway_client,
            ):
                for number in range(WARM_UP + RUNS):
                    token = tokens[number % SESSIONS]
                    for client, durations in ((direct_client, direct), (gateway_client, through)):
                        durations.append(_first_byte(client, token, f"question {number}"))
    return direct[WARM_UP:], through[WARM_UP:]


def _first_byte(client: httpx2.Client, token: str, question: str) -> float:
    """Seconds to the first byte of one streamed answer."""
    body = {**BODY, "stream": True, "system": question}
    started_at = time.perf_counter()
    headers = {"x-api-key": token}
    with client.stream("POST", "/v1/messages", json=body, headers=headers) as response:
        chunks = response.iter_raw()
        next(chunks)
        duration_s = time.perf_counter() - started_at
        assert response.status_code == 200
        for _ in chunks:
            pass
    return duration_s


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[list[str]]:
    """Run this module in another process. Yields the words that it prints when it is ready."""
    command = [sys.executable, "-m", "bench.groups.gateway", *arguments]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()
        finally:
            process.communicate(timeout=30)  # closes its standard input, which ends it


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
    with gateway_for(
        settings_for(folder, _RemoteProvider(url), log_level="error"), migrated
    ) as world:
        print(*(world.token(world.session()) for _ in range(SESSIONS)), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
