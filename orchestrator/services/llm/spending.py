"""Spend is reserved before a call is forwarded, and settled when it is over. Called by the gateway.

What is reserved is the call's worst case. It is given back when nobody answered, corrected when
somebody did; if our process dies meanwhile, the reservation runs out.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm import budgets, pricing
from orchestrator.domain.llm.budgets import Account, Spend
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.requests import Ask
from orchestrator.domain.llm.usage import Call, Outcome, Reservation
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps

LEASE = timedelta(seconds=60)
RENEW_S = 15.0  # leaves room for three renewals that fail


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a call ended."""

    provider: str  # "" when nobody was asked
    model: str  # that the provider was asked for: another one's price than was asked of us
    counts: TokenCounts
    outcome: Outcome
    duration_ms: int


def check_model(deps: Deps, ask: Ask) -> None:
    """Raises errors.NotFound (model_not_offered) for a model that isn't in the allow-list."""
    if ask.model not in deps.policy.models:
        raise errors.NotFound(
            f"model: {ask.model} is not offered here; SPAWN_MODELS allows"
            f" {', '.join(deps.policy.models)}",
            code="model_not_offered",
        )


def reserve(
    deps: Deps, session: Session, ask: Ask, models: Sequence[str], holder: str
) -> Reservation:
    """Set aside the most that a call can cost, whichever of `models` serves it.

    Raises errors.BudgetExhausted: it must not be forwarded then.
    """
    now = deps.clock.now()
    costs = [pricing.worst_case(ask, deps.policy.prices.of(model)) for model in models]
    wanted = Reservation(
        call_id=f"call_{secrets.token_hex(13)}",
        session_id=session.id,
        user_id=session.user_id,
        model=ask.model,
        worst=Spend(tokens=ask.input_bound + ask.max_tokens, micro_usd=max(costs)),
        day=now.astimezone(UTC).date(),
        holder=holder,
        expires_at=now + LEASE,
        change=session.turns.given if session.changing else 0,
    )
    deps.store.usage.reserve(wanted, deps.policy.budgets, now)
    return wanted


def renew(deps: Deps, holder: str) -> None:
    """Say that this process lives, and its calls with it."""
    deps.store.usage.renew(holder, deps.clock.now() + LEASE)


def settle(deps: Deps, reserved: Reservation, ended: Ended) -> Call:
    """Account for a call that is over. Repeating it changes nothing."""
    call = Call(
        call_id=reserved.call_id,
        session_id=reserved.session_id,
        user_id=reserved.user_id,
        model=reserved.model,
        provider=ended.provider,
        counts=ended.counts,
        micro_usd=deps.policy.prices.of(ended.model).cost(ended.counts),
        duration_ms=ended.duration_ms,
        at=deps.clock.now(),
        day=reserved.day,
        outcome=ended.outcome,
        change=reserved.change,
    )
    deps.store.usage.settle(call)
    return call


def standing(deps: Deps, user_id: UserId, now: datetime) -> tuple[Account, Spend]:
    """A user's budget of today, and what of it is spent or set aside."""
    day = now.astimezone(UTC).date()
    # The session is nobody's: its account isn't asked for.
    for account in budgets.accounts(deps.policy.budgets, SessionId(""), user_id, day):
        if account.scope is budgets.Scope.USER:
            return account, deps.store.usage.spent([account.key]).get(account.key, Spend())
    raise AssertionError("every user has an account")
