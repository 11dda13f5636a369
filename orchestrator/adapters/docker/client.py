"""Connections to a Docker engine: the SDK's client with what it lacks. DockerEngine uses it.

Kept connections, deadlines, a writable standard input, and our errors for Docker's.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.adapters.docker.sdk import docker
from orchestrator.domain import errors

if TYPE_CHECKING:
    import requests  # the SDK's own dependency; named here in signatures alone

_CONNECT_S = 3.0
_READ_S = 10.0  # questions: a host that takes longer to answer isn't fit
CHANGE_S = 30.0  # create, start, remove: these take seconds on a busy disk
_OLDEST_API = "1.41"  # Docker 20.10
_KEPT_CONNECTIONS = 16
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


def connect(base_url: str) -> docker.APIClient:
    """A client that several threads may use. Raises what `translated` translates."""
    # The engine's own version: no single one is spoken by both Docker 20.10 and 29. Asked over
    # our transport, which is why the SDK isn't left to do it while it makes the client.
    with contextlib.closing(_client(base_url, _OLDEST_API)) as first:
        version = first.version(api_version=False)["ApiVersion"]
    return _client(base_url, version)


def _client(base_url: str, version: str) -> docker.APIClient:
    client = docker.APIClient(base_url, version=version, timeout=CHANGE_S)
    client.trust_env = False  # proxies and netrc are not for Docker, and cost time on each call
    if base_url.startswith("unix://"):
        client.mount("http+docker://", _Transport(base_url.removeprefix("unix://")))
    return client


@contextlib.contextmanager
def standard_input(api: docker.APIClient, container_id: str) -> Iterator[socket.socket]:
    """A writable socket to the standard input of a container that isn't started yet.

    Not the SDK's attach_socket: that gives a read-only file and leaves the connection open.
    """
    url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/attach"
    wanted = {"stdin": 1, "stream": 1}
    with api.post(url, params=wanted, headers=_UPGRADE, stream=True, timeout=CHANGE_S) as response:
        if response.status_code not in {101, 200}:
            raise errors.SandboxRefused(f"Docker refused standard input: {response.text.strip()}")
        with socket.socket(fileno=os.dup(response.raw.fileno())) as stdin:
            stdin.settimeout(CHANGE_S)
            yield stdin


@contextlib.contextmanager
def translated(doing: str, base_url: str) -> Iterator[None]:
    """Whatever goes wrong with Docker in this block comes out as one of our errors."""
    try:
        yield
    except docker.errors.APIError as error:
        message = f"could not {doing}: {error.explanation or error}"
        if error.response.request.method == "GET":
            raise errors.EngineUnavailable(message) from error
        raise errors.SandboxRefused(message, code=_refusal_code(message)) from error
    except (docker.errors.DockerException, OSError) as error:
        raise errors.EngineUnavailable(
            f"could not {doing}: the Docker engine at {base_url} does not answer ({error})."
            " Check that it runs and that this user may use its socket."
        ) from error


class _Connection(docker.transport.unixconn.UnixHTTPConnection):  # type: ignore[misc]  # the SDK has no types
    """The SDK's connection, which leaves its socket open when it can't connect."""

    def connect(self) -> None:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(self.unix_socket)
        except BaseException:
            connecting.close()
            raise
        self.sock = connecting


class _Pool(docker.transport.unixconn.UnixHTTPConnectionPool):  # type: ignore[misc]  # the SDK has no types
    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class _Transport(docker.transport.unixconn.UnixHTTPAdapter):  # type: ignore[misc]  # the SDK has no types
    """The SDK's transport, with one pool for all URLs and a deadline by kind of request.

    The SDK keeps a pool per URL: as every container has its own, no connection would be reused.
    """

    def get_connection(self, url: str, proxies: object = None) -> _Pool:
        del url, proxies
        with self.pools.lock:
            if "all" not in self.pools:
                self.pools["all"] = _Pool(
                    "http+docker://localhost", self.socket_path, maxsize=_KEPT_CONNECTIONS
                )
            pool: _Pool = self.pools["all"]
            return pool

    def send(self, request: requests.PreparedRequest, **kwargs: object) -> requests.Response:
        kwargs["timeout"] = (_CONNECT_S, _READ_S if request.method == "GET" else CHANGE_S)
        response: requests.Response = super().send(request, **kwargs)
        return response


def _refusal_code(message: str) -> str:
    """Docker's own words decide: it has no numbers for these."""
    said = message.lower()
    if "no such image" in said:
        return "image_missing"
    if "port is already allocated" in said or "address already in use" in said:
        return "port_taken"
    if "no space left on device" in said:
        return "disk_full"
    return "create_failed"
