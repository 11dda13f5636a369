"""Whom to ask next, and when: retries and the chain of providers, as data. Pure.

The gateway asks `next_step`, carries it out, and tells `judge` what came of it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

TRIES = 4  # per provider: the first, and retries after 0.5, 1 and 2 s and some jitter
_FIRST_PAUSE_S = 0.5
_PAUSE_MAX_S = 8.0

_PASSING = frozenset({408, 409, 425, 429})  # besides 5xx: worth another try
_KEY_REFUSED = frozenset({401, 402, 403})  # wrong, without credit, or without permission


class Verdict(enum.StrEnum):
    """What an answer's status means for the call."""

    SERVED = "served"  # pass it on
    FINAL = "final"  # the request is at fault, anywhere: pass the error on
    RETRY = "retry"  # the provider is in trouble
    KEY_REFUSED = "key_refused"  # this provider won't serve us: the next one may
    UNFIT = "unfit"  # the call can't be said to this provider: the next one may understand it


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One provider of the chain, as far as this call has come with it."""

    name: str
    tries: int = 0
    not_before_s: float = 0.0  # its own back-off
    blocked_until_s: float = 0.0  # its breaker
    given_up: bool = False


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Make the call to this provider now."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Wait, then look again."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """Nobody is left to ask within the deadline."""


Step = Ask | Pause | GiveUp


def next_step(candidates: Sequence[Candidate], now_s: float, ends_s: float) -> Step:
    """The first provider that isn't given up and whose breaker lets calls through; its back-off is
    waited for. Where all breakers are open: wait for the first of them."""
    live = [one for one in candidates if not one.given_up and one.not_before_s <= ends_s]
    through = [one for one in live if one.blocked_until_s <= now_s]
    if through:
        first = through[0]
        if first.not_before_s <= now_s:
            return Ask(name=first.name)
        return Pause(seconds=first.not_before_s - now_s)
    soonest = min((one.blocked_until_s for one in live), default=ends_s + 1)
    return Pause(seconds=soonest - now_s) if soonest <= ends_s else GiveUp()


def judge(status: int, headers: Mapping[str, str]) -> Verdict:
    """By status, unless the provider says itself whether a retry makes sense."""
    if status < 400:
        return Verdict.SERVED
    if status in _KEY_REFUSED:
        return Verdict.KEY_REFUSED
    wish = headers.get("x-should-retry")
    if wish == "true" or status >= 500 or status in _PASSING:
        return Verdict.RETRY
    return Verdict.FINAL


def after(
    candidate: Candidate,
    verdict: Verdict,
    headers: Mapping[str, str],
    now_s: float,
    spread: float,
) -> Candidate:
    """The candidate after an attempt that did not serve. `spread`: uniform in [0, 1)."""
    tries = candidate.tries + 1
    hopeless = verdict is not Verdict.RETRY or headers.get("x-should-retry") == "false"
    pause_s = min(_PAUSE_MAX_S, _FIRST_PAUSE_S * 2 ** (tries - 1)) * (1 + spread / 2)
    told_s = retry_after_s(headers)
    return replace(
        candidate,
        tries=tries,
        given_up=hopeless or tries >= TRIES,
        not_before_s=now_s + (pause_s if told_s is None else max(told_s, pause_s)),
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks for; None when it doesn't, or in words that we don't read."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < 24 * 3600:
            return seconds
    return None
