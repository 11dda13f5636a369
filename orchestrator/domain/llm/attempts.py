"""Which provider to try next, and when: retries and the chain of providers, as data. Pure.

For each call the gateway carries out `next_step`, lets `judge` decide what an error means, and
notes a failed attempt with `record_failure`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.domain.llm import provider_errors
from orchestrator.domain.llm.provider_errors import Cause, ProviderError

TRIES = 4  # per provider: the first one, then retries after 0.5, 1 and 2 s plus jitter
_FIRST_PAUSE_S = 0.5
_PAUSE_MAX_S = 8.0

_TRANSIENT = frozenset({408, 409, 425, 429})  # besides 5xx: worth a retry
_OUT_OF_TIME = frozenset({504, 524})  # what stands before the model has given it up


class Verdict(enum.StrEnum):
    """What a failed attempt means for the call. In any case the next provider may serve it."""

    RETRY = "retry"  # the provider is in trouble: retry, then try the next one
    REFUSED = "refused"  # the provider doesn't take this request, whoever is at fault
    NONSENSE = "nonsense"  # its answer is none. A retry would be billed again
    NO_CREDIT = "no_credit"  # the account of our key is empty
    KEY_REFUSED = "key_refused"  # the provider refuses our key
    UNFIT = "unfit"  # the request can't be translated for this provider


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One provider of the chain, and what this call has done with it so far."""

    name: str
    tries: int = 0
    not_before_s: float = 0.0  # the end of its back-off
    blocked_until_s: float = 0.0  # when its circuit breaker lets a call through
    given_up: bool = False


@dataclass(frozen=True, kw_only=True)
class Try:
    """Send the call to this provider now."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Wait, then ask for the next step."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """No provider can be tried before the deadline."""


Step = Try | Pause | GiveUp


def next_step(candidates: Sequence[Candidate], now_s: float, ends_s: float) -> Step:
    """Choose the first provider that isn't given up and whose breaker lets calls through.

    Its back-off is waited for. If all breakers are open, wait for the one that closes first.
    `ends_s` is the deadline of the call.
    """
    remaining = [
        candidate
        for candidate in candidates
        if not candidate.given_up and candidate.not_before_s <= ends_s
    ]
    unblocked = [candidate for candidate in remaining if candidate.blocked_until_s <= now_s]
    if unblocked:
        first = unblocked[0]
        if first.not_before_s <= now_s:
            return Try(name=first.name)
        return Pause(seconds=first.not_before_s - now_s)
    unblocked_at_s = min((candidate.blocked_until_s for candidate in remaining), default=ends_s + 1)
    return Pause(seconds=unblocked_at_s - now_s) if unblocked_at_s <= ends_s else GiveUp()


def judge(status: int, headers: Mapping[str, str], error: ProviderError) -> Verdict:
    """Decide what an error means, unless the provider itself says that a retry makes sense."""
    cause = provider_errors.find_cause(status, error)
    if cause is Cause.NO_CREDIT:
        return Verdict.NO_CREDIT
    if cause is Cause.KEY:
        return Verdict.KEY_REFUSED
    advice = headers.get("x-should-retry")
    if advice == "true" or status >= 500 or status in _TRANSIENT:
        return Verdict.RETRY
    return Verdict.REFUSED


def may_have_worked(status: int) -> bool:
    """Whether the model may have worked on a request that got this error, and bill it."""
    return status in _OUT_OF_TIME


def record_failure(
    candidate: Candidate,
    verdict: Verdict,
    headers: Mapping[str, str],
    now_s: float,
    spread: float,
) -> Candidate:
    """The candidate after a failed attempt. `spread` is a uniform random number in [0, 1)."""
    tries = candidate.tries + 1
    is_hopeless = verdict is not Verdict.RETRY or headers.get("x-should-retry") == "false"
    pause_s = min(_PAUSE_MAX_S, _FIRST_PAUSE_S * 2 ** (tries - 1)) * (1 + spread / 2)
    requested_s = retry_after_s(headers)
    return replace(
        candidate,
        tries=tries,
        given_up=is_hopeless or tries >= TRIES,
        not_before_s=now_s + (pause_s if requested_s is None else max(requested_s, pause_s)),
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The pause in seconds that the provider requests. None: it requests none that we can read."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < 24 * 3600:
            return seconds
    return None
