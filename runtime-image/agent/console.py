"""The agent's own log: lines of JSON on standard error, which `docker logs` shows to an operator.

Never pass a token, a prompt or an app's output: home has the latter two.
"""

from __future__ import annotations

import json
import sys


def log(event: str, **fields: str | int | float | None) -> None:
    """Write one line: an event, named `noun_verb`, and its fields."""
    print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)
