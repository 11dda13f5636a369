"""An engine that sees other files than we is found before a sandbox is started on it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.hosts.fleet import FleetSettings, SshFleet
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.entrypoints.cli.checks import engine as checks
from orchestrator.entrypoints.cli.findings import Finding
from orchestrator.services.pool import host_life
from tests.fakes.clock import ManualClock
from tests.integration.docker import own_engine, support
from tests.integration.docker.own_engine import OwnEngine
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]

LIMITS = SandboxLimits(instance="visibility")


@pytest.fixture(scope="module")
def state_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="spawn-hidden-") as folder:
        (Path(folder) / "agent").mkdir()
        yield Path(folder)


@pytest.fixture(scope="module")
def blind(state_folder: Path) -> Iterator[OwnEngine]:
    """An engine in whose mount namespace our state folder is empty, as with a snap."""
    with own_engine.started(hidden=state_folder) as own:
        own.load(support.probe_image())
        yield own


@contextlib.contextmanager
def engine_at(url: str) -> Iterator[DockerEngine]:
    with contextlib.closing(DockerEngine(url, LIMITS)) as engine:
        yield engine


def list_probes() -> str:
    return support.docker_cli("ps", "-aq", "--filter", "name=spawn-probe-visibility")


def test_an_engine_sees_a_file_in_our_folder(state_folder: Path) -> None:
    folder = state_folder / "agent"
    folder.chmod(0o700)
    (folder / "mark").touch()
    with engine_at(support.DOCKER_URL) as engine:
        assert engine.sees(support.probe_image(), str(folder), "mark")
        assert not engine.sees(support.probe_image(), str(folder), "other")
    assert list_probes() == ""


def test_an_engine_without_our_folder_does_not_see_it(blind: OwnEngine, state_folder: Path) -> None:
    with engine_at(blind.url) as engine:
        assert not engine.sees(support.probe_image(), str(state_folder / "agent"), "mark")
        assert not engine.sees(support.probe_image(), str(state_folder), "agent")
    assert blind.docker("ps", "-aq") == ""


def test_an_engine_that_can_not_start_the_probe_says_why() -> None:
    with (
        engine_at(support.DOCKER_URL) as engine,
        pytest.raises(errors.SandboxRefused) as refused,
    ):
        engine.sees("spawnai/no-such-image:test", "/tmp", "mark")
    assert refused.value.code == "image_missing"


def test_a_probe_that_was_left_behind_is_replaced_and_goes_in_the_end(state_folder: Path) -> None:
    label = "--label=ai.spawn.instance=visibility"
    leave = ("create", label, "--name", "spawn-probe-visibility", support.probe_image())
    support.docker_cli(*leave)
    with engine_at(support.DOCKER_URL) as engine:
        assert not engine.sees(support.probe_image(), str(state_folder), "other")
        assert list_probes() == ""
        support.docker_cli(*leave)
        support.docker_cli("rename", "spawn-probe-visibility", "spawn-probe-visibility-by-hand")
        engine.dismantle()
    assert list_probes() == ""


def test_a_host_is_not_admitted_on_an_engine_that_sees_other_files(
    world: World, blind: OwnEngine, state_folder: Path
) -> None:
    world.image = support.probe_image()
    host = world.add_host(
        state=HostState.JOINING, docker_url=blind.url, agent_folder=str(state_folder / "agent")
    )
    fleet = SshFleet(
        FleetSettings(
            instance="visibility",
            key=state_folder / "key",
            links=state_folder,
            agent_folder=state_folder / "agent",
        ),
        ManualClock(),
    )
    with contextlib.closing(DockerEngine(blind.url, LIMITS, run=blind.run)) as engine, fleet:
        world.engines.special[host.id] = engine
        blinded = host_life.admit(world.deps, fleet, host)
        assert blinded.state is HostState.JOINING
        assert f"doesn't see our folder {host.agent_folder}" in blinded.reason
        assert "SPAWN_DOCKER_URL" in blinded.reason
        assert [path.name for path in (state_folder / "agent").iterdir()] in ([], ["mark"])

        seen = _move_agent_folder(world, host, blind.folder / "bin")
        admitted = host_life.admit(world.deps, fleet, seen)
        assert admitted.state is HostState.UP, admitted.reason
    with engine_at(blind.url) as engine:
        engine.dismantle()


def _move_agent_folder(world: World, host: Host, folder: Path) -> Host:
    return world.store.hosts.change(
        host.id, lambda current: replace(current, agent_folder=str(folder))
    )


def sight(settings: Settings) -> Finding:
    findings = list(checks.check_engine(settings, running=False))
    (finding,) = [finding for finding in findings if finding.name == "Docker's files"]
    return finding


def settings_for(docker_url: str, state_folder: Path) -> Settings:
    return config.make(
        state_dir=state_folder, docker_url=docker_url, runtime_image=support.probe_image()
    )


def test_doctor_names_an_engine_that_sees_other_files(blind: OwnEngine, state_folder: Path) -> None:
    assert sight(settings_for(support.DOCKER_URL, state_folder)).level == "ok"
    finding = sight(settings_for(blind.url, state_folder))
    assert finding.level == "problem"
    assert finding.code == "folder_unseen"
    assert "snap" in finding.fix
    assert blind.url in finding.fix
