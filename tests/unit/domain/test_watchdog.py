"""Silence is measured while somebody looks. A watcher that was away itself accuses nobody."""

from __future__ import annotations

from orchestrator.domain.watchdog import Watchdog


def watching(until: int, watchdog: Watchdog | None = None, since: int = 0) -> Watchdog:
    """A watchdog that has looked each second."""
    watchdog = watchdog or Watchdog(late_s=3)
    for now in range(since, until + 1):
        watchdog.look(now)
    return watchdog


def test_silence_lasts_since_the_last_sign() -> None:
    assert watching(20).silence_s(5, 20) == 15


def test_nobody_is_silent_for_longer_than_we_have_looked() -> None:
    assert watching(120, since=100).silence_s(5, 120) == 20


def test_after_a_sleep_of_the_machine_everybodys_silence_begins_anew() -> None:
    watchdog = watching(10)
    watchdog.look(5000)
    assert watchdog.silence_s(10, 5000) == 0
    assert watching(5020, watchdog, since=5001).silence_s(10, 5020) == 20


def test_a_watcher_that_is_late_a_little_still_counts() -> None:
    watchdog = watching(10)
    watchdog.look(12.9)
    assert watchdog.silence_s(1, 12.9) > 11


def test_a_sign_that_is_still_to_come_is_no_silence() -> None:
    assert watching(20).silence_s(30, 20) == 0
