"""The trial of a version: an agent asks that it be opened at its public address."""

from __future__ import annotations

from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.wire.fields import Fields

TURN_LIMIT_S = 20.0
"""How long a trial waits for its turn. The app has `health.PATIENCE_S` after that."""
SECRET_MAX_CHARS = 64
REQUEST_MAX_BYTES = 1024
_PROBLEM_MAX_CHARS = 1_000
_REQUESTS_MAX = 100


def parse_secret(document: object) -> str:
    """The secret of the trial that an agent asks for. Raises ProtocolError."""
    given = Fields(document, "trial")
    secret = given.text("secret", longest=SECRET_MAX_CHARS)
    if not (secret.isascii() and secret.isalnum()):
        raise given.wrong("secret", "must be letters and digits")
    return secret


def parse_finding(document: object) -> Finding:
    """What the trial has shown. Raises ProtocolError."""
    given = Fields(document, "finding")
    return Finding(
        condition=given.choice("condition", Condition),
        problem=given.text("problem", longest=_PROBLEM_MAX_CHARS, empty=True),
        requests=given.whole("requests", least=1, most=_REQUESTS_MAX),
    )
