"""A sandbox as home starts it, with a fake home at its socket and a scripted model behind that."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from orchestrator.contract.wire import Identity
from tests.fakes.agents.home import SANDBOX_TOKEN, FakeHome
from tests.fakes.llm.messages_api import MessagesApi
from tests.integration.agent.world import ROOT, SLUG, Host, Sandbox

USER = 2_100_021_000  # a number that the image doesn't know, as in every sandbox


@pytest.fixture(scope="session")
def image() -> str:
    build = subprocess.run(
        [ROOT / "runtime-image" / "build.sh"], stdout=subprocess.PIPE, text=True, check=True
    )
    return build.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def network(engine: docker.DockerClient) -> Iterator[str]:
    """The sandboxes' bridge: no traffic between containers, no masquerading to the outside."""
    options = {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
    }
    created = engine.networks.create(f"spawn-test-{uuid.uuid4().hex[:8]}", options=options)
    yield str(created.name)
    created.remove()


@pytest.fixture
def home() -> Iterator[FakeHome]:
    # Not tmp_path: a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="home-"))
    folder.chmod(0o755)
    with FakeHome(folder) as home:
        yield home
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def provider() -> Iterator[MessagesApi]:
    with MessagesApi() as server:
        yield server


@pytest.fixture
def model(provider: MessagesApi, home: FakeHome) -> MessagesApi:
    """The Messages API that this home's gateway leads to."""
    provider.reset()
    home.model_url = provider.url
    return provider


@pytest.fixture
def sandbox(
    engine: docker.DockerClient, image: str, network: str, home: FakeHome
) -> Iterator[Sandbox]:
    with _started(engine, image, network, home) as sandbox:
        yield sandbox


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def ready_sandbox(
    engine: docker.DockerClient, image: str, network: str, home: FakeHome, host: Host
) -> Iterator[Sandbox]:
    """A sandbox that keeps interpreters while `host`, on which it believes to be, has room."""
    with _started(engine, image, network, home, host) as sandbox:
        yield sandbox


@contextlib.contextmanager
def _started(
    engine: docker.DockerClient,
    image: str,
    network: str,
    home: FakeHome,
    host: Host | None = None,
) -> Iterator[Sandbox]:
    volumes = {str(home.socket_path.parent): {"bind": "/run/spawn", "mode": "ro"}}
    container = engine.containers.create(
        image,
        user=f"{USER}:{USER}",
        stdin_open=True,
        init=True,
        read_only=True,
        tmpfs={
            "/tmp": "size=64m,mode=1777,noexec,nosuid,nodev",
            "/app": f"size=256m,uid={USER},gid={USER},mode=0755,noexec,nosuid,nodev",
        },
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit="1g",
        memswap_limit="1g",
        cpu_period=200_000,
        cpu_quota=100_000,
        pids_limit=256,
        dns=["127.0.0.1"],
        network=network,
        ports={"3000/tcp": ("127.0.0.1", None)},
        volumes=volumes | (host.volumes if host is not None else {}),
    )
    try:
        stdin = container.attach_socket(params={"stdin": 1, "stream": 1})
        container.start()
        identity = Identity(
            sandbox_id="sbx_test",
            token=SANDBOX_TOKEN,
            slug=SLUG,
            interpreters=host is not None,
        )
        stdin._sock.sendall(json.dumps(identity.as_json()).encode() + b"\n")
        stdin._sock.close()
        stdin.close()
        yield Sandbox(container)
    finally:
        container.remove(force=True)
