"""The board with the state of the links, as a file."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.adapters.files.link_board import FileLinkBoard
from orchestrator.ports import LinkGauges
from tests.fakes.clock import ManualClock

GAUGES = [
    LinkGauges(
        host="vps1",
        up=True,
        docker=True,
        channels=3,
        rtt_s=0.01,
        reconnects=2,
        refusals={"rate": 1},
    ),
    LinkGauges(host="vps2", up=False, docker=False, channels=0, rtt_s=None, reconnects=0),
]


def test_what_was_posted_last_is_read_by_another_process_until_it_is_old(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "links.json"
    board = FileLinkBoard(path, clock)
    assert board.read() == ()
    board.post(GAUGES[1:])
    board.post(GAUGES)
    assert FileLinkBoard(path, clock).read() == GAUGES
    clock.advance(14)
    assert board.read() == GAUGES
    clock.advance(2)
    assert board.read() == (), "the daemon is down"


def test_a_board_of_another_release_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    board = FileLinkBoard(tmp_path / "links.json", ManualClock())
    board.post(GAUGES)
    content = json.loads((tmp_path / "links.json").read_text())
    for link in content["links"]:
        del link["refusals"]
        link["of_the_next_release"] = 1
    (tmp_path / "links.json").write_text(json.dumps(content))
    assert [link.host for link in board.read()] == ["vps1", "vps2"]


def test_half_a_file_and_a_folder_that_is_gone_are_an_empty_board(tmp_path: Path) -> None:
    (tmp_path / "links.json").write_text('{"valid_until": 1')
    board = FileLinkBoard(tmp_path / "links.json", ManualClock())
    assert board.read() == ()
    lost = FileLinkBoard(tmp_path / "gone" / "links.json", ManualClock())
    lost.post(GAUGES)
    assert lost.read() == ()
