"""Durations as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import duration, errors


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), (90, 90), ("45m", 2700), ("2h", 7200), ("1d", 86400), (" 30 s ", 30), ("0", 0)],
)
def test_what_people_write_is_read(text: str | int, seconds: int) -> None:
    assert duration.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "-5", "1.5h", "1h30m", "2 weeks", "1H", "1e3", "9" * 10, "1\n2", "∞"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(errors.InvalidInput, match="write 45m, 2h, 1d") as caught:
        duration.parse(text)
    assert caught.value.code == "ttl_out_of_range"
    assert caught.value.detail["field"] == "ttl"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (0.4, "0 s"),
        (12, "12 s"),
        (59.6, "1 min"),
        (300, "5 min"),
        (3661, "1 h 1 min"),
        (86400, "1 d"),
        (93600, "1 d 2 h"),
        (86401, "1 d 1 s"),
    ],
)
def test_people_read_at_most_two_units(seconds: float, text: str) -> None:
    assert duration.to_text(seconds) == text


@given(st.integers(0, 999_999_999), st.sampled_from(["", "s", "m", "h", "d"]))
def test_every_number_with_a_unit_is_a_duration(number: int, unit: str) -> None:
    factor = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert duration.parse(f"{number}{unit}") == number * factor
