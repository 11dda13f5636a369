"""Budgets: what fits and how a refusal reads. And the keys of generations."""

from __future__ import annotations

from datetime import date

import pytest

from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm import budgets
from orchestrator.domain.llm.budgets import Budgets, Scope, Spend
from orchestrator.domain.sessions import generations
from orchestrator.domain.sessions.session import Tier

DAY = date(2026, 3, 31)
USER = UserId("usr_" + "a" * 26)


def test_a_call_has_three_accounts_in_a_fixed_order() -> None:
    accounts = budgets.accounts(Budgets(), SessionId("ses_1"), UserId("usr_1"), DAY)
    assert [account.key for account in accounts] == [
        "day:2026-03-31",
        "session:ses_1",
        "user:usr_1:2026-03-31",
    ]
    renewals = {
        account.scope: account.renews_at and account.renews_at.isoformat() for account in accounts
    }
    assert renewals == {
        Scope.INSTALLATION: "2026-04-01T00:00:00+00:00",
        Scope.SESSION: None,
        Scope.USER: "2026-04-01T00:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("spent", "limit", "fits"),
    [
        ((0, 0), (10, 10), True),
        ((1, 0), (10, 10), False),
        ((0, 1), (10, 10), False),
        ((10**9, 10**9), (0, 0), True),
        ((10**9, 0), (0, 10), True),
    ],
)
def test_an_amount_must_fit_in_tokens_and_in_money(
    spent: tuple[int, int], limit: tuple[int, int], fits: bool
) -> None:
    values = (Spend(tokens=tokens, micro_usd=money) for tokens, money in (spent, (10, 10), limit))
    assert budgets.fits(*values) is fits


def test_a_refusal_says_what_is_left_what_was_needed_and_when_it_renews() -> None:
    limits = Budgets(user_day=Spend(tokens=1000, micro_usd=2_000_000))
    account = budgets.accounts(limits, SessionId("s"), UserId("u"), DAY)[-1]
    spent = Spend(tokens=990, micro_usd=1_995_800)
    error = budgets.refusal(account, spent, Spend(), Spend(tokens=50, micro_usd=1_250_000))
    assert str(error) == (
        "The user's daily budget is used up: $0.0042 of $2.00 and 10 of 1,000 tokens left, this"
        " call may need up to $1.25 and 50 tokens; it renews at 2026-04-01 00:00 UTC."
    )
    assert error.code == "budget_exhausted"
    assert error.detail["left_micro_usd"] == 4200


def test_a_budget_that_never_renews_says_so() -> None:
    account = budgets.accounts(Budgets(session=Spend(tokens=5)), SessionId("s"), UserId("u"), DAY)[
        1
    ]
    message = str(budgets.refusal(account, Spend(tokens=4), Spend(), Spend(tokens=2)))
    assert "1 of 5 tokens left" in message
    assert "it does not renew" in message


def test_a_call_that_may_fit_when_others_have_ended_is_told_to_wait() -> None:
    limits = Budgets(user_day=Spend(tokens=1000, micro_usd=2_000_000))
    account = budgets.accounts(limits, SessionId("s"), UserId("u"), DAY)[-1]
    spent, wanted = Spend(tokens=990, micro_usd=1_000_000), Spend(tokens=50, micro_usd=1_000_000)
    error = budgets.refusal(account, spent, Spend(tokens=900, micro_usd=500_000), wanted)
    assert (error.code, error.detail["scope"]) == ("budget_reserved", "user")
    assert str(error) == (
        "The user's daily budget has $1.50 of $2.00 and 910 of 1,000 tokens left, but calls under"
        " way may need so much of it that this call, which may need up to $1.00 and 50 tokens, has"
        " to wait until they have ended."
    )
    error = budgets.refusal(account, spent, Spend(tokens=30), wanted)
    assert error.code == "budget_exhausted"


def key(prompt: str = "a  kanban\nboard ", **changes: object) -> str:
    fields = {"model": "m", "contract": "1", "tier": Tier.FREE, "user_id": USER, **changes}
    return generations.key_of(prompt, **fields)  # type: ignore[arg-type]  # as the test says


def test_a_prompt_has_one_key_however_it_is_spaced_and_composed() -> None:
    assert key() == key("a kanban board")
    assert key("caf\u00e9") == key("cafe\u0301")


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a Kanban board"},
        {"model": "n"},
        {"contract": "2"},
        {"tier": Tier.PRO},
        {"user_id": UserId("usr_" + "b" * 26)},
        {"user_id": None},
    ],
)
def test_everything_that_can_change_the_app_changes_the_key(other: dict[str, object]) -> None:
    assert key(**other) != key()  # type: ignore[arg-type]  # as the test says
