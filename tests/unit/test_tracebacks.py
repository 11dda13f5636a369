"""Equal tracebacks are written once and counted."""

from __future__ import annotations

import pytest

from orchestrator import tracebacks
from orchestrator.tracebacks import CHARS_MAX, Occasion, Repeats

FULL = Occasion(is_full=True, repeats=0)


def test_the_first_one_is_written_in_full_and_the_others_are_counted_each_minute() -> None:
    repeats = Repeats()
    assert repeats.take("a", 0.0) == FULL
    assert [repeats.take("a", now_s) for now_s in (0.0, 1.0, 59.9)] == [None] * 3
    assert repeats.take("b", 1.0) == FULL
    assert repeats.take("a", 60.0) == Occasion(is_full=False, repeats=3)
    assert repeats.take("a", 61.0) is None


def test_one_that_goes_on_is_written_in_full_once_an_hour() -> None:
    repeats = Repeats()
    times = range(0, 7201, 60)
    occasions = [repeats.take("a", float(now_s)) for now_s in times]
    assert [
        now_s for now_s, occasion in zip(times, occasions, strict=True) if occasion == FULL
    ] == [0, 3600, 7200]


def test_a_thousand_different_ones_in_a_minute_are_a_bounded_number_of_lines() -> None:
    repeats = Repeats()
    lines = [occasion for number in range(1000) if (occasion := repeats.take(str(number), 0.0))]
    assert len(lines) == 51
    assert lines[-1] == Occasion(is_full=False, repeats=0)
    assert repeats.take("1000", 60.0) == Occasion(is_full=False, repeats=949)
    assert repeats.take("1000", 3600.0) == FULL, "the old ones are forgotten"


def fail(depth: int, secret: str = "spk_secret") -> None:
    if depth:
        fail(depth - 1)
    raise KeyError(secret)


def fail_because(depth: int, effect: Exception) -> None:
    try:
        fail(depth)
    except KeyError as error:
        raise effect from error


@pytest.mark.parametrize("depth", [0, 500])
def test_a_description_is_short_and_names_causes_and_places(depth: int) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        fail_because(depth, ExceptionGroup("many", [ValueError("x" * 10_000)]))
    text = tracebacks.describe(caught.value, has_messages=False)
    assert len(text) <= CHARS_MAX
    assert text.splitlines()[0] == "ExceptionGroup"
    assert text.splitlines()[2].endswith(" fail_because")
    assert "\nValueError" in text
    assert "spk_secret" not in text
    assert "xxx" not in text


def test_a_cause_is_described_with_its_places() -> None:
    with pytest.raises(RuntimeError) as caught:
        fail_because(0, RuntimeError("a bug"))
    text = tracebacks.describe(caught.value)
    assert text.startswith("RuntimeError: a bug\n  ")
    assert "\nKeyError: 'spk_secret'\n  " in text
    assert text.endswith(" fail")
