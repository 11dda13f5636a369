"""Reserves a call's worst cost before it is forwarded, and settles it afterwards.

Called by the gateway. The reservation is given back if no provider got the call, and corrected if
one did. If our process dies in between, the reservation expires. The gateway may use one that a
call hasn't needed for the next call.
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
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.domain.llm.usage import Call, Outcome, Reservation
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps

LEASE = timedelta(seconds=60)
RENEW_S = 15.0  # leaves room for three renewals that fail


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """How a call ended."""

    provider: str  # "" if no provider was asked
    model: str  # asked of the provider; its price may differ from that of the requested model
    counts: TokenCounts
    outcome: Outcome
    duration_ms: int


def check_model(deps: Deps, request: ModelRequest) -> None:
    """Raises errors.NotFound (model_not_offered) if the model isn't in the allow-list."""
    if request.model not in deps.policy.models:
        raise errors.NotFound(
            f"model: {request.model} is not offered here; SPAWN_MODELS allows"
            f" {', '.join(deps.policy.models)}",
            code="model_not_offered",
        )


def reservation_for(
    deps: Deps, session: Session, request: ModelRequest, models: Sequence[str], holder: str
) -> Reservation:
    """The most that a call can cost, whichever of `models` serves it. `holder` is the process that
    makes the call."""
    now = deps.clock.now()
    costs = [pricing.worst_case(request, deps.policy.prices.tariff_for(model)) for model in models]
    return Reservation(
        call_id=f"call_{secrets.token_hex(13)}",
        session_id=session.id,
        user_id=session.user_id,
        model=request.model,
        worst=Spend(tokens=request.input_bound + request.max_tokens, micro_usd=max(costs)),
        day=now.astimezone(UTC).date(),
        holder=holder,
        expires_at=now + LEASE,
        change=session.turns.started if session.is_changing else 0,
    )


def reserve(deps: Deps, reservation: Reservation) -> None:
    """Reserve it. Raises errors.BudgetExhausted, or errors.LimitReached (budget_reserved) if it may
    fit later: the call must not be forwarded then."""
    deps.store.usage.reserve(reservation, deps.policy.budgets, deps.clock.now())


def renew(deps: Deps, holder: str) -> None:
    """Extend all reservations of a process that is still alive."""
    deps.store.usage.renew(holder, deps.clock.now() + LEASE)


def call_of(deps: Deps, reservation: Reservation, result: CallResult) -> Call:
    """A call that has ended, with what it really cost."""
    return Call(
        call_id=reservation.call_id,
        session_id=reservation.session_id,
        user_id=reservation.user_id,
        model=reservation.model,
        provider=result.provider,
        counts=result.counts,
        micro_usd=deps.policy.prices.tariff_for(result.model).cost(result.counts),
        duration_ms=result.duration_ms,
        at=deps.clock.now(),
        day=reservation.day,
        outcome=result.outcome,
        change=reservation.change,
    )


def unused(deps: Deps, reservation: Reservation) -> Call:
    """The end of a reservation that no call needs."""
    result = CallResult(
        provider="",
        model=reservation.model,
        counts=TokenCounts(),
        outcome=Outcome.CANCELLED,
        duration_ms=0,
    )
    return call_of(deps, reservation, result)


def settle(deps: Deps, call: Call) -> None:
    """Record what a call really cost, and end its reservation. Safe to repeat."""
    deps.store.usage.settle(call)


def get_user_budget(deps: Deps, user_id: UserId, now: datetime) -> tuple[Account, Spend]:
    """A user's budget of today (UTC), and how much of it is spent or reserved."""
    day = now.astimezone(UTC).date()
    # No session is meant: only the user's account is of interest.
    for account in budgets.accounts(deps.policy.budgets, SessionId(""), user_id, day):
        if account.scope is budgets.Scope.USER:
            return account, deps.store.usage.spent([account.key]).get(account.key, Spend())
    raise AssertionError("every user has an account")
