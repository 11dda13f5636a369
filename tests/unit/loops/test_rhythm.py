"""A loop waits briefly while something happens, and longer at rest."""

from __future__ import annotations

from orchestrator.loops.rhythm import REST_AFTER_S, Rhythm


def test_a_loop_rests_when_nothing_has_happened_for_a_while() -> None:
    rhythm = Rhythm(every_s=0.5, rest_s=2.0, now=100.0)
    assert rhythm.wait_s(100.0) == 0.5, "a start is something that happens"
    assert rhythm.wait_s(100.0 + REST_AFTER_S - 0.1) == 0.5
    assert rhythm.wait_s(100.0 + REST_AFTER_S) == 2.0


def test_whatever_happens_ends_the_rest() -> None:
    rhythm = Rhythm(every_s=0.5, rest_s=2.0, now=0.0)
    rhythm.note(60.0)
    assert rhythm.wait_s(60.0 + REST_AFTER_S - 0.1) == 0.5
    assert rhythm.wait_s(60.0 + REST_AFTER_S) == 2.0


def test_a_loop_without_a_rest_keeps_its_interval() -> None:
    rhythm = Rhythm(every_s=0.5, rest_s=None, now=0.0)
    assert rhythm.wait_s(3600.0) == 0.5
