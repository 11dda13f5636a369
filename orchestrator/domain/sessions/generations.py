"""Generations: apps that the model wrote lately. A session with an equal prompt starts one again
instead of paying for another. services.sessions.generations looks them up and keeps them.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.ids import SessionId, Sha256, UserId
from orchestrator.domain.sessions.session import Tier

FRESH_FOR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One row of the generations table: the key of a prompt and the healthy bundle made for it."""

    key: str
    bundle: Sha256
    session_id: SessionId  # the session that made it
    summary: str  # the model's own words about it
    created_at: datetime


def key_of(prompt: str, *, model: str, contract: str, tier: Tier, user_id: UserId | None) -> str:
    """The key of a request. Requests with an equal key may get the same app.

    `contract` is the version of what a sandbox offers to apps. `user_id` is None only if the
    operator lets users share generations.
    """
    parts = [normalise(prompt), model, contract, tier.value, user_id or ""]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def normalise(prompt: str) -> str:
    """One spelling for prompts that read the same. Case stays: it may matter to the user."""
    return " ".join(unicodedata.normalize("NFC", prompt).split())
