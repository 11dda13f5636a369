"""Streams the runtime image to one host, over an SSH connection of its own.

Runs in a process of its own (entrypoints/push_image.py, or `spawnctl image push`): a few hundred
megabytes on the connection that carries control would hold up every claim on that host. The image
goes from this machine's engine to the host's as Docker saves it, compressed on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.adapters.docker import client
from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.docker.sdk import docker
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.adapters.ssh.link import DOCKER_SOCKET
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress

_CONNECT_S = 30.0
_COMPRESSION = 1  # a third of the bytes for little time; more costs more than most lines do
_GZIP = zlib.MAX_WBITS | 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Push:
    """What goes where."""

    image: str  # reference on this machine's engine
    source_url: str  # that engine
    address: HostAddress
    pinned: str  # the host key's line
    key: Path  # our private key


def push(
    what: Push, limits: SandboxLimits, progress: Progress = lambda _sent, _total: None
) -> bool:
    """Stream the image unless it is there; False when it was. `progress` is told of bytes read of
    the image and of its size. Raises LinkDown, EngineUnavailable, HostUnfit (image_missing: this
    machine hasn't got it; image_refused)."""
    with _remote_socket(what) as url, contextlib.closing(DockerEngine(url, limits)) as there:
        if there.image_present(what.image):
            _tag(url, what.image, limits)
            return False
        with client.translated(f"read image {what.image}", what.source_url):
            source = client.connect(what.source_url)
        with contextlib.closing(source):
            _load(source, url, what.image, progress)
        _tag(url, what.image, limits)
        if not there.image_present(what.image):
            raise errors.HostUnfit(
                f"{what.image} arrived at {what.address} as something else", code="image_refused"
            )
    return True


def _load(source: docker.APIClient, url: str, image: str, progress: Progress) -> None:
    try:
        total = int(source.inspect_image(image)["Size"])
    except docker.errors.ImageNotFound as error:
        raise errors.HostUnfit(
            f"this machine has no image {image} to send: run `spawnctl image build`",
            code="image_missing",
        ) from error
    with client.translated(f"load image {image}", url):
        target = client.connect(url)
        with contextlib.closing(target):
            for said in target.load_image(_packed(source, image, total, progress), quiet=False):
                if "error" in said:
                    raise errors.HostUnfit(
                        f"the host's Docker refuses the image: {said['error']}",
                        code="image_refused",
                    )
    progress(total, total)


def _packed(
    source: docker.APIClient, image: str, total: int, progress: Progress
) -> Iterator[bytes]:
    """The saved image as gzip: Docker unpacks what it is given."""
    packer = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, _GZIP)
    sent = 0
    for chunk in source.get_image(image):
        sent += len(chunk)
        progress(min(sent, total), total)
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def _tag(url: str, image: str, limits: SandboxLimits) -> None:
    """Ours too from now on: what is pruned one day are images with our tag."""
    with (
        client.translated(f"tag image {image}", url),
        contextlib.closing(client.connect(url)) as api,
    ):
        api.tag(image, limits.repository, image.rpartition(":")[2])


@contextlib.contextmanager
def _remote_socket(what: Push) -> Iterator[str]:
    """The host's Docker on a socket of this machine, for as long as the block lasts: a URL."""
    with tempfile.TemporaryDirectory(prefix="spawn-push-") as folder:
        path = str(Path(folder) / "docker.sock")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            opening = asyncio.run_coroutine_threadsafe(_forward(what, path), loop)
            connection = opening.result(_CONNECT_S)
            try:
                yield f"unix://{path}"
            finally:
                loop.call_soon_threadsafe(connection.abort)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _forward(what: Push, path: str) -> Any:
    connection = await ssh.connect(what.address, key=what.key, pinned=what.pinned)
    await connection.forward_local_path(path, DOCKER_SOCKET)
    Path(path).chmod(0o600)
    return connection
