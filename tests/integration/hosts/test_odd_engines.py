"""An engine that answers oddly makes its own host unreachable, with a reason, and no other one."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.hosts.fleet import FleetSettings, SshFleet
from orchestrator.domain import errors
from tests.fakes import samples
from tests.fakes.clock import ManualClock
from tests.integration.hosts.odd_engine import OddEngine

_DEADLINE_S = 30
SANDBOX = "sbx_" + "a" * 26
LABELS = {"ai.spawn.instance": "0123456789", "ai.spawn.sandbox": SANDBOX}
ODD_EVENTS = [
    {"Action": "die"},
    {"Action": "die", "Actor": None},
    {"Action": "die", "Actor": {"ID": "c1", "Attributes": 5}},
    {"Action": ["die"], "Actor": {"ID": "c1", "Attributes": LABELS}},
    {"Action": "die", "Actor": {"ID": None, "Attributes": LABELS}},
    ["die"],
    17,
    "die",
    None,
]
ODD_LISTS = [
    {"message": "podman"},
    [7],
    [{"Id": "c1"}],
    [{"Id": "c1", "Labels": None}],
    [{"Id": 1, "Labels": LABELS, "State": "running", "Status": ""}],
    [{"Id": "c1", "Labels": LABELS, "Status": "Up"}],
    None,
]
ODD_INFOS = [
    {},
    [],
    None,
    {"ServerVersion": "27", "Driver": "overlay2", "DockerRootDir": "/d", "MemTotal": "lots"},
    {"ServerVersion": 27, "Driver": None, "DockerRootDir": "/d", "MemTotal": 1, "NCPU": 1},
]


@contextlib.contextmanager
def two_hosts(folder: Path, odd: OddEngine) -> Iterator[tuple[str, str]]:
    """The reason of the odd engine's host, and of a good engine's host, once both have settled."""
    changed = threading.Event()
    fleet = SshFleet(
        FleetSettings(
            instance="0123456789", key=folder / "key", links=folder, agent_folder=folder / "agent"
        ),
        ManualClock(),
    )
    fleet.on_reach = changed.set
    fleet.on_end = lambda _: changed.set()
    good = OddEngine(list=b"[]")
    with odd.listen(folder / "odd") as odd_url, good.listen(folder / "good") as good_url:
        odd_host, good_host = samples.host(docker_url=odd_url), samples.host(docker_url=good_url)

        def settled() -> bool:
            odd_link, good_link = fleet.link_state(odd_host), fleet.link_state(good_host)
            return bool(odd_link and not odd_link.up and good_link and good_link.up)

        with fleet:
            fleet.set_hosts([odd_host, good_host])
            _await(settled, changed)
            odd_link, good_link = fleet.link_state(odd_host), fleet.link_state(good_host)
            assert odd_link is not None
            assert good_link is not None
            yield odd_link.reason, good_link.reason


def _await(condition: Callable[[], bool], changed: threading.Event) -> None:
    while not condition():
        assert changed.wait(_DEADLINE_S), "the links did not settle"
        changed.clear()


@pytest.mark.parametrize("event", ODD_EVENTS, ids=json.dumps)
def test_an_odd_event_harms_its_host_alone(tmp_path: Path, event: object) -> None:
    odd = OddEngine(list=b"[]", events=json.dumps(event).encode() + b"\n")
    with two_hosts(tmp_path, odd) as (reason, other):
        assert "Docker answers oddly" in reason
        assert other == ""


@pytest.mark.parametrize(
    "line", [b"hello\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"x" * 300_000]
)
def test_a_line_that_is_no_json_object_harms_its_host_alone(tmp_path: Path, line: bytes) -> None:
    with two_hosts(tmp_path, OddEngine(list=b"[]", events=line)) as (reason, other):
        assert "Docker answers oddly" in reason
        assert other == ""


def test_a_host_that_names_ever_new_containers_harms_itself_alone(tmp_path: Path) -> None:
    numbers = itertools.count()

    def more_events() -> bytes:
        return b"".join(event_line(f"c{next(numbers)}") for _ in range(100))

    odd = OddEngine(list=b"[]", more_events=more_events)
    with two_hosts(tmp_path, odd) as (reason, other):
        assert "more than 10000 containers" in reason
        assert other == ""


def event_line(container_id: str) -> bytes:
    event = {"Action": "start", "Actor": {"ID": container_id, "Attributes": LABELS}}
    return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize("items", ODD_LISTS, ids=json.dumps)
def test_an_odd_list_harms_its_host_alone(tmp_path: Path, items: object) -> None:
    odd = OddEngine(list=json.dumps(items).encode())
    with two_hosts(tmp_path, odd) as (reason, other):
        assert "Docker answers oddly" in reason
        assert other == ""
    with odd_api(tmp_path, odd) as engine, pytest.raises(errors.EngineUnavailable, match="oddly"):
        engine.containers()


@pytest.mark.parametrize("info", ODD_INFOS, ids=json.dumps)
def test_an_engine_that_describes_itself_oddly_is_unavailable(tmp_path: Path, info: object) -> None:
    odd = OddEngine(info=json.dumps(info).encode())
    with odd_api(tmp_path, odd) as engine, pytest.raises(errors.EngineUnavailable, match="oddly"):
        engine.describe()


@pytest.mark.parametrize("version", [b"{}", b"[]", b"null", b"hello"])
def test_an_engine_without_a_version_is_unavailable(tmp_path: Path, version: bytes) -> None:
    odd = OddEngine(version=version)
    with odd_api(tmp_path, odd) as engine, pytest.raises(errors.EngineUnavailable):
        engine.describe()


def test_a_container_whose_label_is_no_id_of_ours_is_left_alone(tmp_path: Path) -> None:
    labels = {**LABELS, "ai.spawn.sandbox": "../../images/x"}
    items = [{"Id": "c1", "Labels": labels, "State": "running", "Status": "Up"}]
    with odd_api(tmp_path, OddEngine(list=json.dumps(items).encode())) as engine:
        assert engine.containers() == []


@contextlib.contextmanager
def odd_api(folder: Path, odd: OddEngine) -> Iterator[DockerEngine]:
    limits = SandboxLimits(instance="0123456789", memory_bytes=64 * 1024**2, pids=64, runtime=None)
    odd.stopping.clear()
    with odd.listen(folder / "api") as url, contextlib.closing(DockerEngine(url, limits)) as engine:
        yield engine
