"""The conversation about an app so far, shortened to what the model gets to read of it.

services.agents.assignments puts it into the assignment of each change.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.contract.wire import Message, Role
from orchestrator.domain.sessions.changes import Change

_MESSAGE_MAX = 4_000  # characters; the beginning of a long text tells most of it
CHANGES_MAX = 200  # the latest that are looked at; only tiny ones would leave room for more
_TOTAL_MAX = 24_000  # characters, about 6,000 tokens; the model also sees the app's files


def conversation_of(prompt: str, summary: str, changes: Sequence[Change]) -> Sequence[Message]:
    """The messages, oldest first: the prompt, the summary of the first version, then for each
    change that has ended the user's request and how it ended.

    `changes` are the latest ones, oldest first. Those before them count as left out.
    """
    opening = [_user(prompt), *([_assistant(summary)] if summary else [])]
    later: list[Message] = []
    total = 0  # of the messages after the opening, those that aren't looked at included
    for change in changes:
        if change.ended_at is not None:
            later += [_user(_request(change)), _assistant(_reply(change))]
            total = 2 * change.number
    return _without_middle(opening, later, total)


def _request(change: Change) -> str:
    return change.text or f"Go back to version {change.restores}."


def _reply(change: Change) -> str:
    if change.failure is not None:
        return f"This change failed: {change.failure.message}"
    return change.summary or f"Version {change.version} runs."


def _without_middle(opening: list[Message], later: list[Message], total: int) -> Sequence[Message]:
    """Leave out the middle of a long conversation.

    The opening says what the app is for and the end what it has become, so both stay.
    """
    room = _TOTAL_MAX - sum(len(message.text) for message in opening)
    kept = 0
    for message in reversed(later):
        room -= len(message.text)
        if room < 0:
            break
        kept += 1
    dropped = total - kept
    if not dropped:
        return [*opening, *later]
    gap = _assistant(f"({dropped} earlier messages are left out here.)")
    return [*opening, gap, *later[len(later) - kept :]]


def _user(text: str) -> Message:
    return Message(role=Role.USER, text=_shorten(text))


def _assistant(text: str) -> Message:
    return Message(role=Role.ASSISTANT, text=_shorten(text))


def _shorten(text: str) -> str:
    return text if len(text) <= _MESSAGE_MAX else text[: _MESSAGE_MAX - 1] + "…"
