"""The machines of the test fleet behave like real ones when tests reach, break and repair them."""

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
_SILENCE_S = 1.0  # on the same machine, an answer or a refusal takes about 1 ms
_DEADLINE_S = 60


@pytest.fixture
def vps(fleet: Fleet) -> Iterator[Vps]:
    """A machine that the test may break."""
    vps = fleet.named("vps1")
    yield vps
    vps.mend()


@pytest.fixture
def small_disk(fleet: Fleet) -> Iterator[Vps]:
    """The machine whose disk the test may fill."""
    vps = fleet.named("vps3")
    yield vps
    vps.mend()


@pytest.fixture
def published(vps: Vps) -> Iterator[Vps]:
    """A machine with a container that answers `hello` on a published port."""
    vps.load(probe_image())
    answer = "echo hello | exec perl /probe.pl serve"
    publish = ["--publish", f"{_PORT}:3000"]
    container_id = vps.exec(
        "docker", "run", "--detach", *publish, probe_image(), "sh", "-c", answer
    )
    try:
        until(lambda: "hello" in _get(vps), _DEADLINE_S, f"the container's answer on {vps.name}")
        yield vps
    finally:
        vps.mend()
        vps.exec("docker", "rm", "--force", container_id)


# --- logging in -----------------------------------------------------------------------------------


def test_the_owner_of_the_key_may_use_docker_and_nobody_else_may_log_in(
    fleet: Fleet, tmp_path: Path
) -> None:
    stranger = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    for vps in fleet:
        command = "docker version --format '{{.Server.Os}}'"
        assert asyncio.run(_ssh(vps, fleet.private_key, command)) == "linux"
        with pytest.raises(asyncssh.PermissionDenied):
            asyncio.run(_ssh(vps, stranger, "true"))


def test_each_machine_has_an_identity_of_its_own(fleet: Fleet) -> None:
    for identities in (
        {vps.machine_id for vps in fleet},
        {vps.fingerprint for vps in fleet},
        {vps.address for vps in fleet},
    ):
        assert len(identities) == 3


def test_sshd_has_debians_configuration(vps: Vps) -> None:
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


def test_a_cut_is_silent_and_the_same_connections_continue_once_it_is_healed(
    fleet: Fleet, published: Vps
) -> None:
    async def cut_and_heal() -> None:
        with socket.create_connection((published.address, _PORT)) as web:
            async with _connected(published, fleet.private_key) as connection:
                published.cut()
                command = asyncio.ensure_future(connection.run("echo still here", check=True))
                web.sendall(b"GET / HTTP/1.0\r\n\r\n")
                await _assert_silent(published, command, web)
                published.heal()
                web.settimeout(_DEADLINE_S)
                assert "hello" in _read_all(web)
                result = await asyncio.wait_for(command, _DEADLINE_S)
                assert result.stdout == "still here\n"

    asyncio.run(cut_and_heal())


# --- stopping and killing -------------------------------------------------------------------------


def test_a_machine_is_the_same_after_a_stop_and_start(fleet: Fleet, published: Vps) -> None:
    def identity() -> list[str]:
        images = published.exec("docker", "images", "--quiet", "--no-trunc")
        return [published.machine_id, published.fingerprint, images]

    before = identity()
    published.stop()
    assert not _accepts_ssh(published)
    published.start()
    assert _accepts_ssh(published)
    assert identity() == before
    assert asyncio.run(_ssh(published, fleet.private_key, "echo in")) == "in"


def test_a_killed_dockerd_stays_down_until_it_is_started(fleet: Fleet, vps: Vps) -> None:
    vps.kill_dockerd()
    with pytest.raises(asyncssh.ProcessError) as refused:
        asyncio.run(_ssh(vps, fleet.private_key, "docker ps"))
    assert "Cannot connect to the Docker daemon" in str(refused.value.stderr)
    vps.start_dockerd()
    assert asyncio.run(_ssh(vps, fleet.private_key, "docker ps --quiet")) == ""


def test_a_stopped_sshd_ends_its_connections_and_refuses_more(fleet: Fleet, vps: Vps) -> None:
    async def stop_sshd() -> None:
        async with _connected(vps, fleet.private_key) as connection:
            vps.stop_sshd()
            await asyncio.wait_for(connection.wait_closed(), _DEADLINE_S)

    asyncio.run(stop_sshd())
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(_ssh(vps, fleet.private_key, "true"))
    assert vps.exec("docker", "version")
    vps.start_sshd()
    assert asyncio.run(_ssh(vps, fleet.private_key, "echo in")) == "in"


# --- the disk -------------------------------------------------------------------------------------


def test_a_full_disk_refuses_an_image_and_accepts_it_once_freed(small_disk: Vps) -> None:
    small_disk.fill_disk()
    with pytest.raises(AssertionError, match="no space left on device"):
        small_disk.load(probe_image())
    small_disk.free_disk()
    small_disk.load(probe_image())
    small_disk.exec("docker", "image", "rm", probe_image())


def test_a_disk_that_the_machine_shares_is_never_filled(vps: Vps) -> None:
    with pytest.raises(AssertionError, match="no file system of its own"):
        vps.fill_disk()


# --- without pytest -------------------------------------------------------------------------------


def test_the_script_starts_the_requested_number_of_machines_and_removes_all_of_them() -> None:
    project = f"spawn-test-script-{os.getpid()}"
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    try:
        output = script(
            *("up", "--project", project, "--count", "1", "--authorized-key", "-"), stdin=key
        )
        name, address = output.split()
        assert name == "vps1"
        with socket.create_connection((address, 22), _DEADLINE_S) as link:
            assert link.recv(8) == b"SSH-2.0-"
    finally:
        remove(project)
    label = f"label=com.docker.compose.project={project}"
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        assert docker_cli(*kind, "--quiet", "--filter", label) == ""


# --- helpers --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _connected(vps: Vps, key: Path) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Log in as root with only that key, and the host key pinned."""
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
        result = await link.run(command, check=True)
        return str(result.stdout).strip()


async def _assert_silent(vps: Vps, command: asyncio.Future[object], web: socket.socket) -> None:
    """Assert that open and new connections get no answer. A refusal would be an answer."""
    web.settimeout(_SILENCE_S)
    with pytest.raises(TimeoutError):
        web.recv(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(command), _SILENCE_S)
    for port in (22, _PORT):
        with pytest.raises(TimeoutError):
            socket.create_connection((vps.address, port), _SILENCE_S)


def _accepts_ssh(vps: Vps) -> bool:
    """Return whether its sshd accepts a connection."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((vps.address, 22), _SILENCE_S),
    ):
        return True
    return False


def _get(vps: Vps) -> str:
    """Return the response of the published port; "" while nothing listens."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((vps.address, _PORT), _DEADLINE_S) as web,
    ):
        web.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return _read_all(web)
    return ""


def _read_all(web: socket.socket) -> str:
    with web.makefile("r") as response:
        return response.read()
