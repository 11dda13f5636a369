"""Three machines with sshd and Docker, each reached by SSH alone, and what can befall them.

deploy/fleet has the machines, which are containers; the fixture `fleet` in tests/conftest.py starts
them once per run, on one worker (tests/workers.py).
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
COMPOSE = Path(sys.executable).with_name("docker-compose")  # the wheel's
NAMES = ("vps1", "vps2", "vps3")
# Of vps3, for Docker; the runtime image fits several times. Of the outer disk it takes what is
# written to it, and no more when it is "full".
DISK_MIB = 2048
_READY_S = 60
_BUILD_S = 600
_COMMAND_S = 90  # longer than anything in deploy/fleet/vps.sh waits


@dataclass(frozen=True, kw_only=True)
class Vps:
    """One machine. The outer Docker plays its provider's console, and takes no part in the network.

    Each method returns when what it names has happened, and may be repeated.
    """

    name: str
    address: str  # stays the same when the machine is stopped and started
    container: str  # on the outer engine

    # --- its provider's console -------------------------------------------------------------------

    def exec(self, *argv: str, stdin: str = "") -> str:
        """What a command prints that root runs on it. AssertionError with its words on failure."""
        return _docker("exec", "--interactive", self.container, *argv, stdin=stdin)

    def authorize(self, public_key: str) -> None:
        """Let the owner of that key log in as root, beside those who may already."""
        self.exec("vps", "authorize", stdin=public_key + "\n")

    @property
    def fingerprint(self) -> str:
        """Of its host key, as `ssh-keygen -l` shows it: SHA256:..."""
        return self.exec("vps", "fingerprint")

    @property
    def host_key(self) -> str:
        """Its public host key, of the kind whose fingerprint that is."""
        return self.exec("cat", "/etc/ssh/ssh_host_ed25519_key.pub")

    @property
    def machine_id(self) -> str:
        return self.exec("cat", "/etc/machine-id")

    def stop(self) -> None:
        """Every process on it is killed, which closes its connections; `cut` first for silence."""
        _docker("kill", self.container)

    def start(self) -> None:
        """Switch it on, and wait for sshd and Docker."""
        _docker("start", self.container)
        self.await_ready()

    # --- what befalls it --------------------------------------------------------------------------

    def cut(self) -> None:
        """Every packet from and to it is dropped, silently, those of published ports included."""
        self.exec("vps", "cut")

    def heal(self) -> None:
        self.exec("vps", "heal")

    def stop_sshd(self) -> None:
        """Open connections end too."""
        self.exec("vps", "stop-sshd")

    def start_sshd(self) -> None:
        self.exec("vps", "start-sshd")

    def kill_dockerd(self) -> None:
        """kill -9. Containers run on until `start_dockerd`, which ends them, as is the default."""
        self.exec("vps", "kill-dockerd")

    def start_dockerd(self) -> None:
        self.exec("vps", "start-dockerd")

    def fill_disk(self) -> None:
        """Leave Docker 8 MiB. Only on vps3, which has a file system for that."""
        self.exec("vps", "fill-disk")

    def free_disk(self) -> None:
        self.exec("vps", "free-disk")

    def mend(self) -> None:
        """Undo all of the above."""
        if _docker("inspect", "--format", "{{.State.Running}}", self.container) != "true":
            self.start()
        self.exec("vps", "mend")

    # --- what is on it ----------------------------------------------------------------------------

    def containers(self) -> list[dict[str, Any]]:
        """What `docker ps --all` on it lists: ID, Names, Labels, State, Ports and so on."""
        lines = self.exec("docker", "ps", "--all", "--no-trunc", "--format", "{{json .}}")
        return [json.loads(line) for line in lines.splitlines()]

    def started_at(self) -> dict[str, str]:
        """When each container was started, by id."""
        ids = [one["ID"] for one in self.containers()]
        if not ids:
            return {}
        said = self.exec("docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *ids)
        return dict(line.split() for line in said.splitlines())

    def load(self, image: str) -> None:
        """Give it an image of the outer engine. AssertionError if it has no space for it."""
        load = ["docker", "exec", "--interactive", self.container, "docker", "load", "--quiet"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            done = subprocess.run(
                load,
                stdin=saving.stdout,
                capture_output=True,
                text=True,
                timeout=_COMMAND_S,
                check=False,
            )
            saving.kill()  # it would wait for ever for a reader that gave up
        assert done.returncode == 0, f"docker load on {self.name}: {done.stderr or done.stdout}"

    # --- waiting ----------------------------------------------------------------------------------

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
    """All three, and a key pair whose owner may log in on each as root."""

    machines: Sequence[Vps]
    private_key: Path  # ed25519, without a passphrase
    public_key: str  # as a line of authorized_keys

    def __iter__(self) -> Iterator[Vps]:
        return iter(self.machines)

    def named(self, name: str) -> Vps:
        return next(one for one in self.machines if one.name == name)

    def mend(self) -> None:
        """Undo whatever was done to any of them."""
        for one in self:
            one.mend()


def of_project(project: str, folder: Path) -> Fleet:
    """The machines of a compose project, once each answers; their key goes into `folder`."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment=project)
    path = folder / "id_ed25519"
    key.write_private_key(path)
    path.chmod(0o600)
    public = key.export_public_key().decode().strip()
    machines = [_machine(name, f"{project}-{name}-1") for name in NAMES]
    for one in machines:
        one.await_ready()
        one.authorize(public)
    return Fleet(machines=machines, private_key=path, public_key=public)


def environment(project: str) -> list[str]:
    """What compose.yaml has to be told, as NAME=VALUE; builds the image if it isn't there."""
    said = script("environment", "--project", project, "--disk", str(DISK_MIB), within_s=_BUILD_S)
    return said.split()


def remove(project: str) -> None:
    """The machines of a project, their volumes and their network, however far they got."""
    script("down", "--project", project)


def script(*argv: str, stdin: str = "", within_s: float = _COMMAND_S) -> str:
    """Run deploy/fleet.sh: what it printed. AssertionError with its words on failure."""
    env = {**os.environ, "FLEET_COMPOSE": str(COMPOSE)}
    return _run([str(SCRIPT), *argv], stdin=stdin, within_s=within_s, env=env)


@contextlib.contextmanager
def meanwhile(undo: Callable[[], object]) -> Iterator[None]:
    """See to it that what befell a machine is undone, also when the test fails."""
    try:
        yield
    finally:
        undo()


def _machine(name: str, container: str) -> Vps:
    where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = _docker("inspect", "--format", where, container)
    return Vps(name=name, address=address, container=container)


def _docker(*argv: str, stdin: str = "") -> str:
    return _run(["docker", *argv], stdin=stdin, within_s=_COMMAND_S)


def _run(
    argv: Sequence[str], *, stdin: str, within_s: float, env: dict[str, str] | None = None
) -> str:
    done = subprocess.run(
        argv, input=stdin, env=env, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout.strip()
