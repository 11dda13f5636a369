"""What was said about an app so far, cut down to what the model is given of it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.sessions.changes import Change

_LINE_MAX = 4_000  # characters; the start of a long text says most of it
_ALL_MAX = 24_000  # characters, about 6,000 tokens: the files say what the words led to


class Role(enum.StrEnum):
    """Who said it."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, kw_only=True)
class Said:
    """One line of the conversation."""

    role: Role
    text: str


def so_far(asked: str, answered: str, changes: Sequence[Change]) -> Sequence[Said]:
    """From the first prompt and its summary through those changes that are over, oldest first."""
    first = [_user(asked), *([_assistant(answered)] if answered else [])]
    later: list[Said] = []
    for change in changes:
        if change.ended_at is not None:
            later += [_user(_request(change)), _assistant(_reply(change))]
    return _compacted(first, later)


def _request(change: Change) -> str:
    return change.text or f"Go back to version {change.restores}."


def _reply(change: Change) -> str:
    if change.failure is not None:
        return f"That came to nothing: {change.failure.message}"
    return change.summary or f"Version {change.version} runs."


def _compacted(first: list[Said], later: list[Said]) -> Sequence[Said]:
    """The beginning says what the app is for, the end what it has become: the middle goes."""
    room = _ALL_MAX - sum(len(one.text) for one in first)
    kept = 0
    for one in reversed(later):
        room -= len(one.text)
        if room < 0:
            break
        kept += 1
    dropped = len(later) - kept
    if not dropped:
        return [*first, *later]
    gap = _assistant(f"({dropped} earlier messages are left out here.)")
    return [*first, gap, *later[dropped:]]


def _user(text: str) -> Said:
    return Said(role=Role.USER, text=_cut(text))


def _assistant(text: str) -> Said:
    return Said(role=Role.ASSISTANT, text=_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= _LINE_MAX else text[: _LINE_MAX - 1] + "…"
