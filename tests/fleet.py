"""Three container VPSes with sshd and dockerd, each reached by SSH alone, and what can befall them.

deploy/fleet has the machines; the fixture `fleet` in tests/conftest.py starts them once per run.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.installation import Installation, until

ROOT = Path(__file__).resolve().parents[1]
COMPOSE_FILE = ROOT / "deploy" / "fleet" / "compose.yaml"
_READY_S = 60
_UP_S = 180


@dataclass(frozen=True, kw_only=True)
class Vps:
    """One machine. Docker on the outside plays its provider's console."""

    name: str
    container: str  # on the outer engine

    # --- its provider's console -------------------------------------------------------------------

    @property
    def address(self) -> str:
        return _docker(
            "inspect",
            "--format",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            self.container,
        )

    def exec(self, *argv: str, stdin: str = "") -> str:
        """Run something on it as root; what it printed."""
        return _docker("exec", "--interactive", self.container, *argv, stdin=stdin)

    def authorize(self, public_key: str) -> None:
        self.exec("install", "-d", "-m", "0700", "/root/.ssh")
        self.exec("sh", "-c", "cat >/root/.ssh/authorized_keys", stdin=public_key + "\n")

    def stop(self) -> None:
        """The machine dies: no process of it is asked."""
        _docker("kill", self.container)

    def start(self) -> None:
        _docker("start", self.container)

    def cut(self) -> None:
        """Every packet from and to it is dropped, silently, until `heal`."""
        self.exec("vps.sh", "cut")

    def heal(self) -> None:
        self.exec("vps.sh", "heal")

    def stop_sshd(self) -> None:
        """Open connections end too."""
        self.exec("vps.sh", "stop-sshd")

    def start_sshd(self) -> None:
        self.exec("vps.sh", "start-sshd")

    def kill_dockerd(self) -> None:
        self.exec("vps.sh", "kill-dockerd")

    def start_dockerd(self) -> None:
        self.exec("vps.sh", "start-dockerd")
        self.await_docker()

    def fill_disk(self) -> None:
        """Leave 20 MiB on Docker's disk. Only for vps3, which has a small one of its own."""
        free_kb = int(self.exec("df", "-Pk", "/var/lib/docker").splitlines()[-1].split()[3])
        self.exec("fallocate", "-l", f"{free_kb - 20 * 1024}KiB", "/var/lib/docker/ballast")

    def free_disk(self) -> None:
        self.exec("rm", "-f", "/var/lib/docker/ballast")

    # --- what is on it ----------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        said = self.exec("ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub")
        return said.split()[1]

    def containers(self) -> list[dict[str, Any]]:
        """What `docker ps --all` on it lists."""
        lines = self.exec("docker", "ps", "--all", "--no-trunc", "--format", "{{json .}}")
        return [json.loads(line) for line in lines.splitlines()]

    def started_at(self) -> dict[str, str]:
        """When each container was started, by id."""
        ids = [one["ID"] for one in self.containers()]
        if not ids:
            return {}
        said = self.exec("docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *ids)
        return dict(line.split() for line in said.splitlines())

    def await_docker(self) -> None:
        until(lambda: _answers(self), _READY_S, f"Docker on {self.name} to answer")


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """All three."""

    machines: Sequence[Vps]

    def __iter__(self) -> Iterator[Vps]:
        return iter(self.machines)

    def named(self, name: str) -> Vps:
        return next(one for one in self.machines if one.name == name)


def image() -> str:
    """Name of the machines' image, built when it isn't there."""
    done = subprocess.run(
        [ROOT / "deploy" / "fleet.sh", "image"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def of_project(project: str) -> Fleet:
    """The machines of a compose project, once Docker answers on each."""
    machines = [
        Vps(name=name, container=f"{project}-{name}-1") for name in ("vps1", "vps2", "vps3")
    ]
    for one in machines:
        one.await_docker()
    return Fleet(machines=machines)


def join(one: Installation, fleet: Fleet, **options: str) -> None:
    """Add all of them to an installation's pool, and wait until they are UP."""
    key = next(line for line in one.spawnctl("hosts", "key").stdout.splitlines() if "ssh-" in line)
    for vps in fleet:
        vps.authorize(key)
        add(one, vps, **options)
    for vps in fleet:
        await_state(one, vps.name, "up")


def add(one: Installation, vps: Vps, **options: str) -> None:
    """`spawnctl hosts add`, as an operator who read the fingerprint in the console."""
    extra = [part for name, value in options.items() for part in (f"--{name}", value)]
    one.spawnctl(
        "hosts",
        "add",
        f"ssh://root@{vps.address}",
        "--name",
        vps.name,
        "--publish-address",
        vps.address,
        "--fingerprint",
        vps.fingerprint,
        "--no-wait",
        *extra,
    )


def host(one: Installation, name: str) -> dict[str, Any]:
    """A host as the admin API shows it."""
    return dict(one.admin(f"hosts/{name}"))


def await_state(one: Installation, name: str, *states: str, within_s: float = _UP_S) -> None:
    def there() -> bool:
        return host(one, name)["state"] in states

    try:
        until(there, within_s, f"{name} to be {' or '.join(states)}")
    except AssertionError as late:
        raise AssertionError(f"{late}: {host(one, name)}\n{one.logs()}") from None


@contextlib.contextmanager
def meanwhile(undo: Callable[[], object]) -> Iterator[None]:
    """See to it that what befell a machine is undone, also when the test fails."""
    try:
        yield
    finally:
        undo()


def _answers(vps: Vps) -> bool:
    try:
        vps.exec("docker", "version")
    except AssertionError:
        return False
    return True


def _docker(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["docker", *argv], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout.strip()
