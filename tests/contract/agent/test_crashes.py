"""When a crashed app is started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.contract.crashes import CRASHES_MAX, FIRST_DELAY_S, WINDOW_S, CrashHistory

ROOT = Path(__file__).parents[3]


def test_the_fifth_crash_within_a_minute_is_the_last() -> None:
    crashes = CrashHistory()

    assert [crashes.restart_delay_s(now) for now in (0, 1, 3, 6, 11)] == [0.5, 1.0, 2.0, 4.0, None]


def test_crashes_that_are_long_past_do_not_count() -> None:
    crashes = CrashHistory()
    delays = [crashes.restart_delay_s(number * WINDOW_S) for number in range(10)]

    assert delays == [0.5] * 10


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "runtime-image/CONTRACT.md"])
def test_documents_quote_the_figures_of_the_policy(document: str) -> None:
    text = " ".join((ROOT / document).read_text().split())
    delays = [f"{FIRST_DELAY_S * 2**number:g}" for number in range(CRASHES_MAX - 1)]

    assert f"{', '.join(delays[:-1])} and {delays[-1]} s" in text
    assert f"within {WINDOW_S:g} s" in text
