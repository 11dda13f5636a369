"""A stream that is none of the Messages API is asked for again, like one that broke off."""

from __future__ import annotations

import json

import pytest
from agent.generator.model import Interrupted, events

from tests.fakes.llm.separators import SEPARATORS


@pytest.mark.parametrize(
    "data", ["{", "[]", '{"type": 5}', "[" * 100_000, "\udcff", "x" * 5_000_000]
)
def test_data_that_is_no_event_interrupts_the_answer(data: str) -> None:
    frame = f"event: x\ndata: {data}\n\n".encode("utf-8", "surrogateescape")
    with pytest.raises(Interrupted, match="makes no sense"):
        list(events([frame]))


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_text_may_have_any_character_that_somebody_takes_for_the_end_of_a_line(
    line_end: str,
) -> None:
    event = {"type": "content_block_delta", "delta": {"text": f"a{SEPARATORS}b"}}
    frame = f"data: {json.dumps(event, ensure_ascii=False)}{line_end}{line_end}"
    assert list(events([frame.encode()])) == [event]
