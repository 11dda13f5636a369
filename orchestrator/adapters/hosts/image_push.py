"""Streams the runtime image to one host, over an SSH connection of its own.

Runs in a separate process (entrypoints/push_image.py, or `spawnctl image push`): on the connection
that carries control, a few hundred megabytes would hold up every claim on that host. The image goes
from this machine's engine to the host's in the format of `docker save`, compressed on the way.
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
from orchestrator.adapters.ssh.forwarding import DOCKER_SOCKET
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress

_CONNECT_TIMEOUT_S = 30.0
_PUSH_S = 2 * 3600.0  # for the whole image; 300 MB take 40 minutes over a line of 1 Mbit/s
# Level 1 shrinks the image to a third in little time. On most lines, higher levels take more time
# than they save.
_COMPRESSION_LEVEL = 1
_GZIP = zlib.MAX_WBITS | 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ImagePush:
    """Which image goes from which engine to which host."""

    image: str  # reference on this machine's engine
    source_url: str  # of this machine's engine
    address: HostAddress
    pinned: str  # the host key's line
    key: Path  # our private key


def push_image(
    push: ImagePush, limits: SandboxLimits, progress: Progress = lambda _sent, _total: None
) -> bool:
    """Stream the image unless the host has it. Return whether it was sent.

    Call `progress` with the bytes of the image read so far, and its size. Raises errors.LinkDown,
    errors.EngineUnavailable, errors.HostUnfit (image_missing: this machine does not have the image;
    image_refused).
    """
    with (
        _forwarded_docker(push) as url,
        contextlib.closing(DockerEngine(url, limits)) as remote_engine,
    ):
        if remote_engine.image_present(push.image):
            _tag(url, push.image, limits)
            return False
        with client.translate_errors(f"read image {push.image}", push.source_url):
            source = client.connect(push.source_url, call_s=_PUSH_S)
        with contextlib.closing(source):
            _load(source, url, push.image, progress)
        _tag(url, push.image, limits)
        if not remote_engine.image_present(push.image):
            raise errors.HostUnfit(
                f"another image than {push.image} arrived at {push.address}", code="image_refused"
            )
    return True


def _load(source: docker.APIClient, url: str, image: str, progress: Progress) -> None:
    try:
        total_bytes = int(source.inspect_image(image)["Size"])
    except docker.errors.ImageNotFound as error:
        raise errors.HostUnfit(
            f"this machine has no image {image} to send: run `spawnctl image build`",
            code="image_missing",
        ) from error
    with client.translate_errors(f"load image {image}", url):
        target = client.connect(url, call_s=_PUSH_S)
        with contextlib.closing(target):
            archive = _compressed(source, image, total_bytes, progress)
            for message in target.load_image(archive, quiet=False):
                if "error" in message:
                    raise errors.HostUnfit(
                        f"the host's Docker refuses the image: {message['error']}",
                        code="image_refused",
                    )
    progress(total_bytes, total_bytes)


def _compressed(
    source: docker.APIClient, image: str, total_bytes: int, progress: Progress
) -> Iterator[bytes]:
    """Yield the saved image as gzip, which Docker unpacks while it loads."""
    compressor = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP)
    read_bytes = 0
    for chunk in source.get_image(image):
        read_bytes += len(chunk)
        progress(min(read_bytes, total_bytes), total_bytes)
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()


def _tag(url: str, image: str, limits: SandboxLimits) -> None:
    """Mark the image on the host as ours: prune_images removes only images with our tag."""
    with (
        client.translate_errors(f"tag image {image}", url),
        contextlib.closing(client.connect(url)) as api,
    ):
        api.tag(image, limits.repository, image.rpartition(":")[2])


@contextlib.contextmanager
def _forwarded_docker(push: ImagePush) -> Iterator[str]:
    """Forward the host's Docker to a socket of this machine. Yield its URL."""
    with tempfile.TemporaryDirectory(prefix="spawn-push-") as folder:
        path = str(Path(folder) / "docker.sock")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            future = asyncio.run_coroutine_threadsafe(_forward(push, path), loop)
            connection = future.result(_CONNECT_TIMEOUT_S)
            try:
                yield f"unix://{path}"
            finally:
                loop.call_soon_threadsafe(connection.abort)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _forward(push: ImagePush, path: str) -> Any:
    connection = await ssh.connect(push.address, key=push.key, pinned=push.pinned)
    await connection.forward_local_path(path, DOCKER_SOCKET)
    Path(path).chmod(0o600)
    return connection
