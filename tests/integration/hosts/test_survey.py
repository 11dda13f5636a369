"""What `hosts doctor` measures on a machine with a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from orchestrator.adapters.hosts import survey
from orchestrator.domain.pool.host_facts import Survey
from tests.integration.docker.support import eventually

DESCRIPTORS = 300
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
"""
START = 'mkdir -p /run/sshd && ulimit -n "$1" && exec "$(command -v sshd)" -D -e -f "$2"'


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="spawn-sshd-") as name:
        yield Path(name)


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[int]:
    """A real sshd with few descriptors, which knows the key in the folder. Yields its port."""
    for name in ("host", "ours"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        (folder / name).chmod(0o600)
    (folder / "authorized_keys").write_bytes(key.export_public_key())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    argv = ("sh", "-ec", START, "sh", str(DESCRIPTORS), f"{folder}/config")
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    as_root = () if os.geteuid() == 0 else ("sudo", "-n", "--preserve-env=PATH")
    process = subprocess.Popen((*as_root, *argv), env=env, stderr=subprocess.PIPE)
    try:
        eventually("sshd listens", lambda: _listens(port) or process.poll() is not None)
        yield port
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
        assert process.returncode in {0, -15, 255}, said


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def survey_over(port: int, folder: Path) -> Survey:
    async with asyncssh.connect(
        "127.0.0.1", port, username="root", client_keys=[str(folder / "ours")], known_hosts=None
    ) as connection:
        return await survey.survey_host(connection, "127.0.0.1", [0])


def test_the_limit_of_descriptors_is_that_of_the_process_that_serves_our_connection(
    folder: Path,
) -> None:
    with sshd(folder) as port:
        facts = asyncio.run(survey_over(port, folder)).facts
    assert facts.sshd_descriptors == DESCRIPTORS
    assert facts.sshd["maxsessions"] == "10"
