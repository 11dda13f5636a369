"""A dockerd of a test's own, in network and mount namespaces of its own.

It has its own firewall, images and networks, so a test may prune, restart or misconfigure it.
Nothing that it does concerns the engine that all other tests share.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.docker import egress
from orchestrator.ports import CommandOutcome
from tests.integration.docker import support

_READY_S = 60
_COMMAND_S = 120

# The new /sys shows the new network; the cgroups of the old one are put back into it.
_BOOT = """
set -e
folder=$1; hidden=$2; shift 2
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
if [ -n "$hidden" ]; then mount -t tmpfs tmpfs "$hidden"; fi
exec dockerd --data-root "$folder/data" --exec-root /run/docker --pidfile /run/dockerd.pid \
    --bip 10.252.0.1/24 --default-address-pool base=10.253.0.0/20,size=24 \
    -H "unix://$folder/docker.sock" "$@"
"""


@dataclass(kw_only=True)
class OwnEngine:
    """A running dockerd."""

    folder: Path
    flags: Sequence[str]
    hidden: Path | None  # a folder of this machine that the engine doesn't see
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"unix://{self.folder / 'docker.sock'}"

    def start(self) -> None:
        """Start it in new namespaces, and wait until it answers."""
        unshare = ("unshare", "--net", "--mount", "--propagation", "private")
        boot = ("bash", "-c", _BOOT, "boot", str(self.folder), str(self.hidden or ""))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*unshare, *boot, *self.flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._await_answer()

    def stop(self) -> None:
        """End it, and its containers with it."""
        self.process.terminate()
        try:
            self.process.wait(_COMMAND_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def run(self, argv: Sequence[str]) -> CommandOutcome:
        """Run a command as root on the engine's machine: an egress.Runner."""
        inside = ("nsenter", f"--target={self.process.pid}", "--net", "--mount")
        path = f"PATH={self.folder / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
        return egress.run_locally((*inside, "env", path, *argv))

    def docker(self, *argv: str, stdin: bytes = b"") -> str:
        """Run the docker command. Returns its output; AssertionError with it on failure."""
        result = subprocess.run(
            ["docker", *argv],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_S,
            check=False,
            env={**os.environ, "DOCKER_HOST": self.url},
        )
        output = result.stdout.decode(errors="replace").strip()
        assert result.returncode == 0, f"docker {' '.join(argv)}: {output}"
        return output

    def load(self, image: str) -> None:
        """Copy an image from the engine that all tests share."""
        saved = subprocess.run(
            ["docker", "save", image],
            stdout=subprocess.PIPE,
            timeout=_COMMAND_S,
            check=True,
            env={**os.environ, "DOCKER_HOST": support.DOCKER_URL},
        )
        self.docker("load", "--quiet", stdin=saved.stdout)

    def _await_answer(self) -> None:
        ends_at = time.monotonic() + _READY_S
        while True:
            with contextlib.suppress(AssertionError):
                self.docker("version")
                return
            log = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert self.process.poll() is None, log
            assert time.monotonic() < ends_at, log
            time.sleep(0.05)

    @contextlib.contextmanager
    def legacy_tables(self) -> Iterator[None]:
        """Let `run` use iptables-legacy in this block. The engine itself goes on with the other."""
        links = []
        for name in ("iptables", "ip6tables"):
            for suffix in ("", "-save", "-restore"):
                program = shutil.which(f"{name}-legacy{suffix}")
                assert program, "these tests need iptables-legacy"
                links.append(self.folder / "bin" / f"{name}{suffix}")
                links[-1].symlink_to(program)
        try:
            yield
        finally:
            for link in links:
                link.unlink()


@contextlib.contextmanager
def started(*flags: str, hidden: Path | None = None) -> Iterator[OwnEngine]:
    """A dockerd with these flags."""
    folder = Path(tempfile.mkdtemp(prefix="spawn-own-"))
    (folder / "bin").mkdir()
    engine = OwnEngine(folder=folder, flags=flags, hidden=hidden)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        _end_leftovers(folder)
        shutil.rmtree(folder)


def _end_leftovers(folder: Path) -> None:
    """End the shims of a dockerd that had to be killed: they name its folder."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if str(folder).encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)
