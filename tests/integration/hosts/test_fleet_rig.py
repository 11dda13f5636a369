"""The machines that other tests rely on behave as real ones: reached, broken and mended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.e2e.installation import until
from tests.fleet import Fleet, Vps, remove, script
from tests.integration.docker.support import docker_cli, probe_image

_PORT = 8000
_SILENCE_S = 1.0  # on the same machine, an answer or a refusal takes a thousandth of that
_DEADLINE_S = 60


@pytest.fixture
def vps(fleet: Fleet) -> Iterator[Vps]:
    """One to be broken."""
    one = fleet.named("vps1")
    yield one
    one.mend()


@pytest.fixture
def small_disk(fleet: Fleet) -> Iterator[Vps]:
    """The one whose disk may be filled."""
    one = fleet.named("vps3")
    yield one
    one.mend()


@pytest.fixture
def published(vps: Vps) -> Iterator[Vps]:
    """A machine with a container that answers `hello` on a published port."""
    vps.load(probe_image())
    answer = "echo hello | exec perl /probe.pl serve"
    publish = ["--publish", f"{_PORT}:3000"]
    box = vps.exec("docker", "run", "--detach", *publish, probe_image(), "sh", "-c", answer)
    try:
        until(lambda: "hello" in _get(vps), _DEADLINE_S, f"the container's answer on {vps.name}")
        yield vps
    finally:
        vps.mend()
        vps.exec("docker", "rm", "--force", box)


# --- who may come in ------------------------------------------------------------------------------


def test_the_owner_of_the_key_may_use_docker_and_nobody_else_may_log_in(
    fleet: Fleet, tmp_path: Path
) -> None:
    stranger = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    for one in fleet:
        command = "docker version --format '{{.Server.Os}}'"
        assert asyncio.run(_ssh(one, fleet.private_key, command)) == "linux"
        with pytest.raises(asyncssh.PermissionDenied):
            asyncio.run(_ssh(one, stranger, "true"))


def test_each_machine_has_an_identity_of_its_own(fleet: Fleet) -> None:
    for ids in (
        {one.machine_id for one in fleet},
        {one.fingerprint for one in fleet},
        {one.address for one in fleet},
    ):
        assert len(ids) == 3


def test_sshd_is_configured_as_debian_does_it(vps: Vps) -> None:
    settings = vps.exec("/usr/sbin/sshd", "-T").splitlines()
    assert {
        "port 22",
        "maxsessions 10",
        "maxstartups 10:30:100",
        "allowstreamlocalforwarding yes",
        "streamlocalbindunlink no",
        "permitrootlogin without-password",
    } <= set(settings)


# --- the network ----------------------------------------------------------------------------------


def test_a_published_port_is_reached_at_the_machines_address(published: Vps) -> None:
    assert _get(published).endswith("hello\n")


def test_a_cut_is_silent_and_the_same_connections_go_on_when_it_is_healed(
    fleet: Fleet, published: Vps
) -> None:
    async def told() -> None:
        with socket.create_connection((published.address, _PORT)) as web:
            async with _connected(published, fleet.private_key) as ssh:
                published.cut()
                said = asyncio.ensure_future(ssh.run("echo still here", check=True))
                web.sendall(b"GET / HTTP/1.0\r\n\r\n")
                await _assert_silent(published, said, web)
                published.heal()
                web.settimeout(_DEADLINE_S)
                assert "hello" in _rest_of(web)
                done = await asyncio.wait_for(said, _DEADLINE_S)
                assert done.stdout == "still here\n"

    asyncio.run(told())


# --- stopping and killing -------------------------------------------------------------------------


def test_a_machine_that_was_off_is_the_same_afterwards(fleet: Fleet, published: Vps) -> None:
    def identity() -> list[str]:
        images = published.exec("docker", "images", "--quiet", "--no-trunc")
        return [published.machine_id, published.fingerprint, images]

    before = identity()
    published.stop()
    assert not _lets_in(published)
    published.start()
    assert _lets_in(published)
    assert identity() == before
    assert asyncio.run(_ssh(published, fleet.private_key, "echo in")) == "in"


def test_a_killed_dockerd_stays_away_until_it_is_started(fleet: Fleet, vps: Vps) -> None:
    vps.kill_dockerd()
    with pytest.raises(asyncssh.ProcessError) as refused:
        asyncio.run(_ssh(vps, fleet.private_key, "docker ps"))
    assert "Cannot connect to the Docker daemon" in str(refused.value.stderr)
    vps.start_dockerd()
    assert asyncio.run(_ssh(vps, fleet.private_key, "docker ps --quiet")) == ""


def test_a_stopped_sshd_ends_its_connections_and_refuses_more(fleet: Fleet, vps: Vps) -> None:
    async def told() -> None:
        async with _connected(vps, fleet.private_key) as ssh:
            vps.stop_sshd()
            await asyncio.wait_for(ssh.wait_closed(), _DEADLINE_S)

    asyncio.run(told())
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(_ssh(vps, fleet.private_key, "true"))
    assert vps.exec("docker", "version")
    vps.start_sshd()
    assert asyncio.run(_ssh(vps, fleet.private_key, "echo in")) == "in"


# --- the disk -------------------------------------------------------------------------------------


def test_a_full_disk_refuses_an_image_and_takes_it_once_it_is_freed(small_disk: Vps) -> None:
    small_disk.fill_disk()
    with pytest.raises(AssertionError, match="no space left on device"):
        small_disk.load(probe_image())
    small_disk.free_disk()
    small_disk.load(probe_image())
    small_disk.exec("docker", "image", "rm", probe_image())


def test_a_disk_that_is_not_the_machines_own_is_not_filled(vps: Vps) -> None:
    with pytest.raises(AssertionError, match="no file system of its own"):
        vps.fill_disk()


# --- without pytest -------------------------------------------------------------------------------


def test_the_script_starts_as_many_as_asked_for_and_leaves_nothing_of_them() -> None:
    project = f"spawn-test-script-{os.getpid()}"
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    try:
        shown = script(
            *("up", "--project", project, "--count", "1", "--authorized-key", "-"), stdin=key
        )
        name, address = shown.split()
        assert name == "vps1"
        with socket.create_connection((address, 22), _DEADLINE_S) as link:
            assert link.recv(8) == b"SSH-2.0-"
    finally:
        remove(project)
    label = f"label=com.docker.compose.project={project}"
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        assert docker_cli(*kind, "--quiet", "--filter", label) == ""


# --- what the tests ask ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _connected(vps: Vps, key: Path) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """As root with that key alone, the host key pinned."""
    async with asyncssh.connect(
        vps.address,
        username="root",
        client_keys=[str(key)],
        known_hosts=asyncssh.import_known_hosts(f"{vps.address} {vps.host_key}\n"),
        agent_path=None,
        config=None,
        login_timeout=_DEADLINE_S,
    ) as link:
        yield link


async def _ssh(vps: Vps, key: Path, command: str) -> str:
    async with _connected(vps, key) as link:
        done = await link.run(command, check=True)
        return str(done.stdout).strip()


async def _assert_silent(vps: Vps, said: asyncio.Future[object], web: socket.socket) -> None:
    """What is asked on open connections and a new one get no answer; a refusal would be one."""
    web.settimeout(_SILENCE_S)
    with pytest.raises(TimeoutError):
        web.recv(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(said), _SILENCE_S)
    for port in (22, _PORT):
        with pytest.raises(TimeoutError):
            socket.create_connection((vps.address, port), _SILENCE_S)


def _lets_in(vps: Vps) -> bool:
    """Whether a connection to its sshd is made."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((vps.address, 22), _SILENCE_S),
    ):
        return True
    return False


def _get(vps: Vps) -> str:
    """Whatever the published port says to a request; nothing while nobody listens."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((vps.address, _PORT), _DEADLINE_S) as web,
    ):
        web.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return _rest_of(web)
    return ""


def _rest_of(web: socket.socket) -> str:
    with web.makefile("r") as answer:
        return answer.read()
