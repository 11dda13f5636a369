"""What every process of ours writes into its log when something fails."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging
from orchestrator import observability
from orchestrator.slim import structlog

def fail(depth, secret="spk_" + "never-to-be-seen"):
    if depth:
        fail(depth - 1)
    raise ValueError("a long message " * 10_000)

observability.configure("info", "test")
try:
    fail(500)
except ValueError as error:
    structlog.get_logger().exception("pass_failed", host="alpha")
    structlog.get_logger().error("call_crashed", exc_info=error)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
"""


def test_a_traceback_in_the_log_is_short_and_names_places_not_values() -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert "never-to-be-seen" not in process.stderr
    assert len(process.stderr) < 3 * 5000
    ours = [json.loads(line) for line in process.stderr.splitlines() if line.startswith("{")]
    assert [line["event"] for line in ours] == ["pass_failed", "call_crashed"]
    for line in ours:
        assert line["exception"].startswith("ValueError: a long message")
        assert line["exception"].endswith("<string>:9 fail")
    assert ours[0]["host"] == "alpha"
    assert process.stderr.count("<string>:9 fail") == 3
