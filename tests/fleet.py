"""Three machines with sshd and Docker that tests reach by SSH, and break and mend.

The machines are containers, see deploy/fleet. The fixture `fleet` in tests/conftest.py starts them
once per run, on one worker (tests/workers.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from tests.e2e.installation import until

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "deploy" / "fleet.sh"
COMPOSE_FILE = ROOT / "deploy" / "fleet" / "compose.yaml"
COMPOSE = Path(sys.executable).with_name("docker-compose")  # from the wheel
NAMES = ("vps1", "vps2", "vps3")
# Docker's disk on vps3. The runtime image fits several times. On the outer disk it takes only as
# much as is written to it, even when it is "full".
DISK_MIB = 2048
_READY_S = 60
_BUILD_S = 600
_COMMAND_S = 90  # longer than anything in deploy/fleet/vps.sh waits


@dataclass(frozen=True, kw_only=True)
class Vps:
    """One machine. The outer Docker stands for its provider's console, outside the network.

    Each method returns once its work is done, and may be repeated.
    """

    name: str
    address: str  # stays the same when the machine is stopped and started
    container: str  # on the outer engine

    def exec(self, *argv: str, stdin: str = "") -> str:
        """Run a command as root. Returns its output; AssertionError with it on failure."""
        return _docker("exec", "--interactive", self.container, *argv, stdin=stdin)

    def authorize(self, public_key: str) -> None:
        """Let the owner of this key log in as root, too."""
        self.exec("vps", "authorize", stdin=public_key + "\n")

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its host key, as `ssh-keygen -l` shows it: SHA256:..."""
        return self.exec("vps", "fingerprint")

    @property
    def host_key(self) -> str:
        """The public host key that `fingerprint` belongs to."""
        return self.exec("cat", "/etc/ssh/ssh_host_ed25519_key.pub")

    @property
    def machine_id(self) -> str:
        return self.exec("cat", "/etc/machine-id")

    def stop(self) -> None:
        """Kill every process, which closes the connections. `cut` before that keeps them silent."""
        _docker("kill", self.container)

    def start(self) -> None:
        """Switch it on, and wait for sshd and Docker."""
        _docker("start", self.container)
        self.await_ready()

    # Faults

    def cut(self) -> None:
        """Silently drop every packet from and to the machine, also of published ports."""
        self.exec("vps", "cut")

    def heal(self) -> None:
        self.exec("vps", "heal")

    def stop_sshd(self) -> None:
        """Stop sshd, and end its open connections."""
        self.exec("vps", "stop-sshd")

    def start_sshd(self) -> None:
        self.exec("vps", "start-sshd")

    def kill_dockerd(self) -> None:
        """Send dockerd SIGKILL. Its containers run on until `start_dockerd`, which ends them."""
        self.exec("vps", "kill-dockerd")

    def start_dockerd(self) -> None:
        self.exec("vps", "start-dockerd")

    def fill_disk(self) -> None:
        """Leave Docker 8 MiB. Only on vps3, where Docker has its own file system."""
        self.exec("vps", "fill-disk")

    def free_disk(self) -> None:
        self.exec("vps", "free-disk")

    def mend(self) -> None:
        """Undo all faults."""
        if _docker("inspect", "--format", "{{.State.Running}}", self.container) != "true":
            self.start()
        self.exec("vps", "mend")

    # Containers and images

    def containers(self) -> list[dict[str, Any]]:
        """The rows of `docker ps --all` on it: ID, Names, Labels, State, Ports and so on."""
        lines = self.exec("docker", "ps", "--all", "--no-trunc", "--format", "{{json .}}")
        return [json.loads(line) for line in lines.splitlines()]

    def started_at(self) -> dict[str, str]:
        """The start time of each container, by id. One that is removed meanwhile is left out."""
        command = "docker inspect --format '{{.Id}} {{.State.StartedAt}}' $(docker ps -aq) || true"
        output = self.exec("sh", "-c", command)
        return dict(line.split() for line in output.splitlines() if " " in line)

    def load(self, image: str) -> None:
        """Copy an image of the outer engine to it. AssertionError if it has no space for it."""
        load = ["docker", "exec", "--interactive", self.container, "docker", "load", "--quiet"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            result = subprocess.run(
                load,
                stdin=saving.stdout,
                capture_output=True,
                text=True,
                timeout=_COMMAND_S,
                check=False,
            )
            saving.kill()  # it would wait for ever for a reader that has exited
        assert result.returncode == 0, (
            f"docker load on {self.name}: {result.stderr or result.stdout}"
        )

    # Waiting

    def await_ready(self) -> None:
        until(lambda: self._succeeds("vps", "ready"), _READY_S, f"sshd and Docker of {self.name}")

    def await_docker(self) -> None:
        until(lambda: self._succeeds("docker", "version"), _READY_S, f"Docker of {self.name}")

    def _succeeds(self, *argv: str) -> bool:
        try:
            self.exec(*argv)
        except AssertionError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The three machines, and a key pair whose owner may log in as root on each."""

    machines: Sequence[Vps]
    private_key: Path  # ed25519, without a passphrase
    public_key: str  # as a line of authorized_keys

    def __iter__(self) -> Iterator[Vps]:
        return iter(self.machines)

    def named(self, name: str) -> Vps:
        return next(machine for machine in self.machines if machine.name == name)

    def mend(self) -> None:
        """Undo all faults of all machines."""
        for machine in self:
            machine.mend()


def await_machines(project: str, folder: Path) -> Fleet:
    """The machines of a compose project, once each answers. Their key is written to `folder`."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment=project)
    path = folder / "id_ed25519"
    key.write_private_key(path)
    path.chmod(0o600)
    public = key.export_public_key().decode().strip()
    machines = [_machine(name, f"{project}-{name}-1") for name in NAMES]
    for machine in machines:
        machine.await_ready()
        machine.authorize(public)
    return Fleet(machines=machines, private_key=path, public_key=public)


def environment(project: str) -> list[str]:
    """The variables of compose.yaml, as NAME=VALUE. Builds the image if there is none."""
    output = script("environment", "--project", project, "--disk", str(DISK_MIB), within_s=_BUILD_S)
    return output.split()


def remove(project: str) -> None:
    """Remove the machines of a project, their volumes and their network, even half-made ones."""
    script("down", "--project", project)


def script(*argv: str, stdin: str = "", within_s: float = _COMMAND_S) -> str:
    """Run deploy/fleet.sh. Returns its output; AssertionError with it on failure."""
    env = {**os.environ, "FLEET_COMPOSE": str(COMPOSE)}
    return _run([str(SCRIPT), *argv], stdin=stdin, within_s=within_s, env=env)


@contextlib.contextmanager
def undo_at_end(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` at the end, also if the test fails."""
    try:
        yield
    finally:
        undo()


def _machine(name: str, container: str) -> Vps:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = _docker("inspect", "--format", template, container)
    return Vps(name=name, address=address, container=container)


def _docker(*argv: str, stdin: str = "") -> str:
    return _run(["docker", *argv], stdin=stdin, within_s=_COMMAND_S)


def _run(
    argv: Sequence[str], *, stdin: str, within_s: float, env: dict[str, str] | None = None
) -> str:
    result = subprocess.run(
        argv, input=stdin, env=env, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert result.returncode == 0, f"{' '.join(argv)}: {result.stderr or result.stdout}"
    return result.stdout.strip()
