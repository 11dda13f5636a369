"""JSON columns of a newer or an older release are read: keys may be there or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.adapters.sql_store import codec
from orchestrator.domain.pool.host import STARTS_AT_ONCE, StartCurve
from orchestrator.domain.sessions.change_turns import Turns
from tests.fakes import samples

SESSION = samples.full_session()
COLUMNS = [column.name for column in codec.SESSION]
JSON_COLUMNS = ["wish", "move", "turns", "report", "failure"]


def row(**changes: Any) -> list[Any]:
    values = {**codec.session_values(SESSION), **changes}
    return [values[name] for name in COLUMNS]


@pytest.mark.parametrize("name", JSON_COLUMNS)
def test_a_key_that_we_do_not_know_is_ignored(name: str) -> None:
    data = json.loads(codec.session_values(SESSION)[name])
    assert codec.session_of(row(**{name: json.dumps({**data, "new": [1]})})) == SESSION


def test_a_key_that_is_missing_has_its_default() -> None:
    assert codec.session_of(row(turns="{}")).turns == Turns()
    assert codec.session_of(row(wish='{"region": "eu"}')).wish.labels == {}


@pytest.mark.parametrize("text", ["[1.0]", "[1.0, null, 2.0, 3.0, 4.0]"])
def test_a_start_curve_of_another_length_is_cut_or_filled(text: str) -> None:
    host = samples.host(starts=StartCurve(seconds=(1.0,) * STARTS_AT_ONCE))
    values = {**codec.host_values(host), "starts": text}
    read = codec.host_of([values[column.name] for column in codec.HOST])
    assert len(read.starts.seconds) == STARTS_AT_ONCE
    assert read.starts.at_once >= 1
