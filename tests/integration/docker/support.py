"""A real Docker engine with a small probe sandbox, for the tests in this folder.

The probe is a Perl program: even Debian's smallest base image contains Perl, so the probe needs no
package.
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
from orchestrator.domain.ids import SandboxId
from orchestrator.ports import SandboxSpec

DOCKER_URL = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
ENVIRONMENT = {**os.environ, "DOCKER_HOST": DOCKER_URL}  # of the docker command
_BASE_IMAGE = "spawnai/debian-base:bookworm"
_BASE_SCRIPT = Path(__file__).parents[3] / "runtime-image" / "base.sh"

_PROBE = r"""
use strict; use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select;
$| = 1;
my ($action, @args) = @ARGV;
sub reached { print "reached\n"; exit 0 }
sub failed { print "failed: $_[0]\n"; exit 1 }
if ($action eq 'serve') {
    my $identity = <STDIN>;
    my $home = IO::Socket::INET->new(LocalPort => 3000, Listen => 16, ReuseAddr => 1) or die $!;
    print STDERR defined(<STDIN>) ? "more input\n" : "input closed\n";
    while (1) {
        my $peer = $home->accept or next;
        while (<$peer>) { last if /^\r?$/ }
        print $peer "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n$identity";
        close $peer;
    }
} elsif ($action eq 'tcp') {
    IO::Socket::INET->new(PeerAddr => $args[0], PeerPort => $args[1], Timeout => 1)
        ? reached() : failed($@);
} elsif ($action eq 'unix') {
    my $home = IO::Socket::UNIX->new(Peer => $args[0]) or failed($!);
    print scalar <$home>; exit 0;
} elsif ($action eq 'dns') {
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
    result = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=ENVIRONMENT,
    )
    return result.stdout.strip()


def printed_by(sandbox_id: SandboxId) -> str:
    """What a container has written to standard output and standard error so far."""
    result = subprocess.run(
        ["docker", "logs", container_name(sandbox_id)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
        env=ENVIRONMENT,
    )
    return result.stdout


def inspect(name: str) -> dict[str, Any] | None:
    """Return `docker inspect` of a container; None when there is none."""
    try:
        return dict(json.loads(docker_cli("container", "inspect", name))[0])
    except subprocess.CalledProcessError:
        return None


def eventually(description: str, condition: Callable[[], object], deadline_s: float = 20) -> None:
    ends_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends_at, f"waited {deadline_s} s in vain: {description}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def probe_image() -> str:
    """Return the name of the probe image, and build it if its content has changed.

    The image is kept between runs.
    """
    base = _BASE_IMAGE
    if not _image_exists(base):
        result = subprocess.run([_BASE_SCRIPT], capture_output=True, text=True, check=True)
        base = result.stdout.split()[-1]
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
    """One engine with its own instance name, and what a sandbox on it needs."""

    engine: DockerEngine
    limits: SandboxLimits
    image: str
    agent_folder: Path

    def spec(self, **fields: Any) -> SandboxSpec:
        defaults: dict[str, Any] = {
            "sandbox_id": ids.new_sandbox_id(),
            "image": self.image,
            "publish_address": "127.0.0.1",
            "port": free_port(),
            "agent_folder": str(self.agent_folder),
            "cpus": 0.5,
            "identity": json.dumps({"token": secrets.token_hex(16)}),
        }
        return SandboxSpec(**{**defaults, **fields})

    def start(self, spec: SandboxSpec) -> str:
        return self.engine.start(spec)

    def probe(self, spec: SandboxSpec, *arguments: str) -> str:
        """Run the probe inside a sandbox. Return its output, such as "reached" or "failed: ..."."""
        name = container_name(spec.sandbox_id)
        result = subprocess.run(
            ["docker", "exec", name, "perl", "/probe.pl", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=ENVIRONMENT,
        )
        assert result.returncode in {0, 1}, result.stderr
        return result.stdout.strip()


@contextlib.contextmanager
def new_bench(allowlist: Sequence[str] | None = None) -> Iterator[Bench]:
    """Yield a bench, and remove everything at the end.

    Only addresses on the `allowlist` reach published ports; None allows everybody.
    """
    limits = SandboxLimits(instance=f"test-{secrets.token_hex(4)}")
    engine = DockerEngine(DOCKER_URL, limits, allowlist=lambda: allowlist)
    folder = Path(tempfile.mkdtemp(prefix="spawn-agent-"))
    folder.chmod(0o755)
    try:
        assert engine.prepare() == []
        yield Bench(engine=engine, limits=limits, image=probe_image(), agent_folder=folder)
    finally:
        remove_all(engine)
        engine.dismantle()
        engine.close()
        shutil.rmtree(folder)
        container_ids = docker_cli(
            "ps", "-aq", "--filter", f"label={INSTANCE_LABEL}={limits.instance}"
        )
        assert container_ids == "", "a test left containers behind that the engine doesn't list"


def remove_all(engine: DockerEngine) -> None:
    for container in engine.containers():
        engine.remove(container.sandbox_id)


def wait_for_body(spec: SandboxSpec) -> str:
    """Wait for an answer to GET / on the published port: the probe sends its identity."""
    bodies: list[str] = []

    def ask() -> bool:
        url = f"http://{spec.publish_address}:{spec.port}/"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
            bodies.append(response.read().decode())
        return bool(bodies)

    eventually("the sandbox answers", ask)
    return bodies[0].strip()
