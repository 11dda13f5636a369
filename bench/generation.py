"""The time to an app that the model writes, when the model answers at once: all of it is ours."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import links
from bench.measure import Row, ms, percentile
from tests.e2e.installation import Installation, installed

RUNS = 8
AT_ONCE = 8
_ROOT = Path(__file__).parent.parent
_KINDS = {
    "static": "A page about tide pools",
    "Python": "A small python api with fastapi for bird sightings",
    "Node": "A node server that greets in five languages",
}
_LIMITS_S = {"static": 0.6, "Python": 1.2, "Node": 1.0}
_LIMIT_AT_ONCE_S = 2.5


def rows() -> Sequence[Row]:
    """One row for each kind of app, and one for several at once."""
    with _provider() as url, installed(ready=True, **_settings(url)) as spawn:
        measured = {
            kind: [_together(spawn, prompt, 1)[0] for _ in range(RUNS)]
            for kind, prompt in _KINDS.items()
        }
        at_once = _together(spawn, _KINDS["static"], AT_ONCE)
    return [
        *(
            _row(f"generated {kind} app, POST to first 200", samples, _LIMITS_S[kind])
            for kind, samples in measured.items()
        ),
        _row(f"{AT_ONCE} generated static apps at once, the same", at_once, _LIMIT_AT_ONCE_S),
    ]


def _settings(url: str) -> dict[str, str]:
    return {
        "ANTHROPIC_API_KEY": "a-key",
        "ANTHROPIC_BASE_URL": url,
        "SPAWN_SLOTS": "24",
        "SPAWN_BUDGET_USER_USD": "1000",
        "SPAWN_BUDGET_DAY_USD": "1000",
    }


def _together(spawn: Installation, prompt: str, count: int) -> list[float]:
    """Seconds from POST to the first 200 of each of `count` apps. Ends them afterwards."""
    links.wait_until_warm(spawn)
    with ThreadPoolExecutor(count) as clients:
        made = list(
            clients.map(
                lambda _: links.to_first_200(spawn, prompt=prompt, fresh=True), range(count)
            )
        )
    for session_id, _ in made:
        links.end(spawn, session_id)
    return [duration_s for _, duration_s in made]


def _row(name: str, samples: Sequence[float], limit_s: float) -> Row:
    p50 = percentile(samples, 0.5)
    return Row(
        name=f"{name}; the model answers at once",
        p50=ms(p50),
        p95=ms(percentile(samples, 0.95)),
        ratio="",
        target=f"p50 <= {limit_s * 1000:.0f} ms",
        met=p50 <= limit_s,
    )


@contextlib.contextmanager
def _provider() -> Iterator[str]:
    """The scripted model, in a process of its own. Yields its URL."""
    command = [sys.executable, "-m", "tests.fakes.llm.messages_api", "--port", "0"]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
