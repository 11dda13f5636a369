"""Server-sent events are read alike by agent and control plane, wherever a chunk ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contract.event_stream import EventReader
from tests.fakes.llm.separators import SEPARATORS


def read(raw: bytes, step: int = 1_000_000) -> list[str]:
    reader = EventReader()
    pieces = [raw[start : start + step] for start in range(0, len(raw), step)]
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [event.decode() for event in [*events, *reader.end()]]


@given(
    events=st.lists(st.text().filter(lambda text: not {"\r", "\n"} & {*text}), min_size=1),
    line_end=st.sampled_from(["\n", "\r", "\r\n"]),
    step=st.integers(1, 9),
)
def test_data_arrives_as_it_was_sent(events: list[str], line_end: str, step: int) -> None:
    raw = "".join(f"data: {event}{line_end}{line_end}" for event in events)
    assert read(raw.encode("utf-8", "replace"), step) == [
        event.encode("utf-8", "replace").decode() for event in events
    ]


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (f"data: a{SEPARATORS}b\n\n", [f"a{SEPARATORS}b"]),
        ("data: a\ndata: b\n\n", ["a\nb"]),
        ("\ufeffdata: a\n\n", ["a"]),
        ("data:a\n\ndata:  b\n\n", ["a", " b"]),
        (": a comment\n\nevent: x\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
        ("event: x\n\ndatum: a\n\n", []),
        ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", ["a", "b", "c"]),
        ("data: a\n\ndata: b", ["a", "b"]),
    ],
)
def test_a_stream_is_read_as_its_standard_says(raw: str, events: list[str]) -> None:
    assert read(raw.encode()) == events
    assert read(raw.encode(), 1) == events


def test_an_event_is_there_as_soon_as_its_line_has_ended() -> None:
    assert EventReader().feed(b"data: a\r\r") == [b"a"]


@pytest.mark.parametrize("piece", [b"data: x", b"data: x\n", b"x"])
def test_an_event_without_an_end_is_refused(piece: bytes) -> None:
    reader = EventReader(event_max_bytes=100)

    def feed_all() -> None:
        for _ in range(200):
            reader.feed(piece)

    with pytest.raises(ValueError, match="more than 100 bytes"):
        feed_all()
