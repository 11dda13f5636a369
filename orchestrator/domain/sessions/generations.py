"""Earlier generations that may be started again instead of asking the model anew."""

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
    """One row of the generations table: a prompt's key, and the healthy bundle it came to."""

    key: str
    bundle: Sha256
    session_id: SessionId  # which made it
    summary: str  # what the model said of it
    created_at: datetime


def key_of(prompt: str, *, model: str, contract: str, tier: Tier, user_id: UserId | None) -> str:
    """What two requests must have in common to get the same app. `contract`: version of what a
    sandbox offers; `user_id`: None only where sharing between users is switched on."""
    parts = [normalised(prompt), model, contract, tier.value, user_id or ""]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def normalised(prompt: str) -> str:
    """One spelling for what reads the same. Case is kept: it may be part of what was asked for."""
    return " ".join(unicodedata.normalize("NFC", prompt).split())
