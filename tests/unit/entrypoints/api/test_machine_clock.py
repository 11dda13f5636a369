"""How people see time when this machine's clock was set, and how operators learn of it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.files.state_folder import SUPERVISOR_LOCK, StateFolder
from orchestrator.entrypoints.api import server
from orchestrator.entrypoints.liveness import hangs
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.world import World

AHEAD = "this machine's clock was set: it is 40 d ahead of"


def test_times_are_shown_as_the_machines_clock_has_them(world: World, operator: Api) -> None:
    world.add_host()
    status, session = operator("POST", "/api/sessions", {"template": "todo", "ttl": "1h"})
    assert status == 202, session
    before = operator("GET", f"/api/admin/sessions/{session['session_id']}")[1]
    world.clock.ahead = timedelta(days=40)
    after = operator("GET", f"/api/admin/sessions/{session['session_id']}")[1]
    assert shifts(before, after) == {timedelta(days=40)}
    hosts = operator("GET", "/api/admin/hosts")[1]["hosts"]
    assert datetime.fromisoformat(hosts[0]["since"]) > world.clock.now() + timedelta(days=39)


@pytest.mark.parametrize(("days", "text"), [(40, AHEAD), (-1, "1 d behind")])
def test_ready_overview_and_metrics_say_that_the_clock_was_set(
    world: World, operator: Api, days: int, text: str
) -> None:
    world.add_host()
    world.clock.ahead = timedelta(days=days)
    check = operator("GET", "/ready")[1]["checks"]["clock"]
    assert check["ok"] is True
    assert text in check["detail"]
    (warning,) = operator("GET", "/api/admin/overview")[1]["warnings"]
    assert text in warning
    (offset_s,) = re.findall(
        r"^spawn_clock_offset_seconds (\S+)$", operator.text("/metrics"), re.MULTILINE
    )
    assert float(offset_s) == days * 86400


def test_start_and_hangs_are_compared_by_the_clock_that_wrote_them_down(
    world: World, operator: Api, tmp_path: Path
) -> None:
    (tmp_path / SUPERVISOR_LOCK).touch()
    stamp = StateFolder(tmp_path).started_at()
    assert stamp is not None
    world.clock.ahead = timedelta(seconds=round((stamp - world.clock.now()).total_seconds()))
    hangs.record(tmp_path, "api-1", "no sign of life", stamp - timedelta(minutes=30))
    hangs.record(tmp_path, "daemon", "no sign of life", stamp - timedelta(hours=2))
    detail = operator("GET", "/ready")[1]["checks"]["processes"]["detail"]
    assert "api-1 hung" in detail
    assert "daemon" not in detail
    assert server.started_at(world.deps, StateFolder(tmp_path)) + world.clock.offset() == stamp


def test_after_a_day_it_is_no_warning_any_more(world: World, operator: Api) -> None:
    world.add_host()
    world.clock.ahead, world.clock.ahead_since = timedelta(days=40), world.clock.now()
    assert len(operator("GET", "/api/admin/overview")[1]["warnings"]) == 1
    world.clock.advance(25 * 3600)
    assert operator("GET", "/api/admin/overview")[1]["warnings"] == []
    assert AHEAD in operator("GET", "/ready")[1]["checks"]["clock"]["detail"]


def test_a_clock_that_agrees_is_no_warning(world: World, operator: Api) -> None:
    world.add_host()
    assert operator("GET", "/ready")[1]["checks"]["clock"]["detail"].startswith("agrees")
    assert operator("GET", "/api/admin/overview")[1]["warnings"] == []


def shifts(before: object, after: object) -> set[timedelta]:
    """By how much the times in the second JSON value differ from those in the first."""
    if isinstance(before, dict) and isinstance(after, dict):
        return set().union(*(shifts(before[key], after[key]) for key in before))
    if isinstance(before, list) and isinstance(after, list):
        return set().union(*(shifts(*pair) for pair in zip(before, after, strict=True)))
    try:
        return {datetime.fromisoformat(str(after)) - datetime.fromisoformat(str(before))}
    except ValueError:
        return set()
