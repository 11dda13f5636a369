"""The file that we leave on a host for a moment goes away, whatever ends in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.adapters.hosts.fleet import FleetSettings, SshFleet
from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from tests.fakes import samples
from tests.fakes.clock import ManualClock
from tests.integration.hosts.ssh_server import ShellHost, shell_host

_DEADLINE_S = 60


def fleet_in(folder: Path, links: Path | None = None) -> SshFleet:
    settings = FleetSettings(
        instance="0123456789",
        key=folder / "key",
        links=links or folder,
        agent_folder=folder / "agent",
    )
    return SshFleet(settings, ManualClock())


def marks_in(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.glob("mark*"))


def test_a_broken_link_leaves_a_mark_until_the_next_one(tmp_path: Path) -> None:
    """A real SSH server, and a real link."""
    folder, closed = tmp_path / "agent", tmp_path / "closed"

    async def scene() -> None:
        async with shell_host(tmp_path, f"[ ! -e {closed} ] || exit 1") as server:
            await asyncio.to_thread(story, server, asyncio.get_running_loop())

    def story(server: ShellHost, loop: asyncio.AbstractEventLoop) -> None:
        target = server.target
        host = samples.host(
            docker_url=f"ssh://root@{target.address.host}:{target.address.port}",
            host_key=target.pinned,
            agent_folder=str(folder),
        )
        # Not below tmp_path: the path of a socket has at most 107 bytes.
        with (
            tempfile.TemporaryDirectory(prefix="spawn-") as links,
            fleet_in(tmp_path, Path(links)) as fleet,
        ):
            fleet.set_hosts([host])
            asyncio.run(wait_for_link(fleet, host))
            with fleet.mark(host) as first:
                assert marks_in(folder) == [first]
                closed.touch()
                loop.call_soon_threadsafe(server.drop_connections)
                asyncio.run(wait_for_cut(fleet, host))
            assert marks_in(folder) == [first]
            closed.unlink()
            asyncio.run(wait_for_link(fleet, host))
            with fleet.mark(host) as second:
                assert marks_in(folder) == [second]
            assert marks_in(folder) == []

    asyncio.run(scene())


async def wait_for_link(fleet: SshFleet, host: Host) -> None:
    async with asyncio.timeout(_DEADLINE_S):
        while not can_run(fleet, host):
            await asyncio.sleep(0.01)


async def wait_for_cut(fleet: SshFleet, host: Host) -> None:
    async with asyncio.timeout(_DEADLINE_S):
        while can_run(fleet, host):
            await asyncio.sleep(0.01)


def can_run(fleet: SshFleet, host: Host) -> bool:
    try:
        return fleet.run(host, ("true",)).code == 0
    except errors.Temporary:
        return False


@pytest.mark.parametrize("left", [[], ["mark-00", "mark-01"]])
def test_on_this_machine_a_mark_takes_away_those_of_processes_that_were_killed(
    tmp_path: Path, left: Sequence[str]
) -> None:
    for name in left:
        (tmp_path / name).touch()
    (tmp_path / "agent.sock").touch()
    host = samples.host(agent_folder=str(tmp_path))
    with fleet_in(tmp_path) as fleet, fleet.mark(host) as name:
        assert marks_in(tmp_path) == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["agent.sock"]
