"""A stream that is none of the Messages API is asked for again, like one that broke off."""

from __future__ import annotations

import pytest
from agent.generator.model import Interrupted, events


@pytest.mark.parametrize(
    "line", ["data: {", "data: []", 'data: {"type": 5}', "data: " + "[" * 100_000]
)
def test_a_line_that_is_no_event_interrupts_the_answer(line: str) -> None:
    with pytest.raises(Interrupted, match="makes no sense"):
        list(events(["event: x", line]))
