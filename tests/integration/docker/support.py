"""A real Docker engine with a small probe sandbox, for test_docker_engine.py and test_egress.py.

The probe is a Perl program (Debian's smallest base has Perl), so that no package is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import INSTANCE_LABEL, SandboxLimits, container_name
from orchestrator.domain import ids
from orchestrator.ports import SandboxSpec

DOCKER_URL = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
_BASE_IMAGE = "spawnai/debian-base:bookworm"
_BASE_SCRIPT = Path(__file__).parents[3] / "runtime-image" / "base.sh"

_PROBE = r"""
use strict; use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select;
$| = 1;
my ($what, @args) = @ARGV;
sub reached { print "reached\n"; exit 0 }
sub failed { print "failed: $_[0]\n"; exit 1 }
if ($what eq 'serve') {
    my $identity = <STDIN>;
    my $home = IO::Socket::INET->new(LocalPort => 3000, Listen => 16, ReuseAddr => 1) or die $!;
    print STDERR defined(<STDIN>) ? "more input\n" : "input closed\n";
    while (1) {
        my $peer = $home->accept or next;
        while (<$peer>) { last if /^\r?$/ }
        print $peer "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n$identity";
        close $peer;
    }
} elsif ($what eq 'tcp') {
    IO::Socket::INET->new(PeerAddr => $args[0], PeerPort => $args[1], Timeout => 1)
        ? reached() : failed($@);
} elsif ($what eq 'unix') {
    my $home = IO::Socket::UNIX->new(Peer => $args[0]) or failed($!);
    print scalar <$home>; exit 0;
} elsif ($what eq 'dns') {
    my ($server, $name) = @args;
    my $socket = IO::Socket::INET->new(PeerAddr => $server, PeerPort => 53, Proto => 'udp')
        or failed($@);
    my $question = join('', map { chr(length) . $_ } split /\./, $name) . "\0";
    $socket->send(pack('n6', 1, 256, 1, 0, 0, 0) . $question . pack('n2', 1, 1)) or failed($!);
    IO::Select->new($socket)->can_read(1) or failed('no reply');
    defined($socket->recv(my $reply, 512)) or failed($!);
    my (undef, $flags, undef, $answers) = unpack('n4', $reply);
    ($flags & 15) == 0 && $answers > 0 ? reached() : failed("code " . ($flags & 15));
}
"""
_DOCKERFILE = """FROM {base}
COPY probe.pl /probe.pl
CMD ["perl", "/probe.pl", "serve"]
"""


def docker_cli(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "DOCKER_HOST": DOCKER_URL},
    )
    return done.stdout.strip()


def inspect(name: str) -> dict[str, Any] | None:
    """`docker inspect` of a container; None when there is none."""
    try:
        return dict(json.loads(docker_cli("container", "inspect", name))[0])
    except subprocess.CalledProcessError:
        return None


def eventually(what: str, condition: Callable[[], object], deadline_s: float = 20) -> None:
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"waited {deadline_s} s in vain: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def probe_image() -> str:
    """Name of the probe image, built when its content has changed; kept between runs."""
    base = _BASE_IMAGE
    if not _image_exists(base):
        done = subprocess.run([_BASE_SCRIPT], capture_output=True, text=True, check=True)
        base = done.stdout.split()[-1]
    dockerfile = _DOCKERFILE.format(base=base)
    digest = hashlib.sha256((dockerfile + _PROBE).encode()).hexdigest()[:12]
    image = f"spawnai/test-probe:{digest}"
    if not _image_exists(image):
        with tempfile.TemporaryDirectory() as context:
            (Path(context) / "probe.pl").write_text(_PROBE)
            (Path(context) / "Dockerfile").write_text(dockerfile)
            docker_cli("build", "--quiet", "--tag", image, context)
    return image


def _image_exists(image: str) -> bool:
    try:
        docker_cli("image", "inspect", image)
    except subprocess.CalledProcessError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One engine under an instance of its own, and what a sandbox on it needs."""

    engine: DockerEngine
    limits: SandboxLimits
    image: str
    agent_folder: Path

    def spec(self, **other: Any) -> SandboxSpec:
        wanted: dict[str, Any] = {
            "sandbox_id": ids.new_sandbox_id(),
            "image": self.image,
            "publish_address": "127.0.0.1",
            "port": free_port(),
            "agent_folder": str(self.agent_folder),
            "identity": json.dumps({"token": secrets.token_hex(16)}),
        }
        return SandboxSpec(**{**wanted, **other})

    def start(self, spec: SandboxSpec, *, replace_stale: bool = False) -> str:
        return self.engine.start(spec, replace_stale=replace_stale)

    def probe(self, spec: SandboxSpec, *what: str) -> str:
        """Run the probe inside a sandbox: what it printed, whether it reached something or not."""
        name = container_name(spec.sandbox_id)
        done = subprocess.run(
            ["docker", "exec", name, "perl", "/probe.pl", *what],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "DOCKER_HOST": DOCKER_URL},
        )
        assert done.returncode in {0, 1}, done.stderr
        return done.stdout.strip()


@contextlib.contextmanager
def new_bench(guests: Sequence[str] | None = None) -> Iterator[Bench]:
    """Everything that is made here is removed at the end. `guests` alone reach published ports."""
    limits = SandboxLimits(instance=f"test-{secrets.token_hex(4)}")
    engine = DockerEngine(DOCKER_URL, limits, guests=lambda: guests)
    folder = Path(tempfile.mkdtemp(prefix="spawn-agent-"))
    folder.chmod(0o755)
    try:
        assert engine.prepare() == []
        yield Bench(engine=engine, limits=limits, image=probe_image(), agent_folder=folder)
    finally:
        clear(engine)
        engine.dismantle()
        engine.close()
        shutil.rmtree(folder)
        left = docker_cli("ps", "-aq", "--filter", f"label={INSTANCE_LABEL}={limits.instance}")
        assert left == "", "a test left containers behind that the engine doesn't list"


def clear(engine: DockerEngine) -> None:
    for container in engine.containers():
        engine.remove(container.sandbox_id)


def answer(spec: SandboxSpec) -> str:
    """Body of GET / on the published port, once the sandbox answers: the identity it was given."""
    body: list[str] = []

    def ask() -> bool:
        url = f"http://{spec.publish_address}:{spec.port}/"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
            body.append(response.read().decode())
        return bool(body)

    eventually("the sandbox answers", ask)
    return body[0].strip()
