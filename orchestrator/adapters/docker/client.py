"""Connections to a Docker engine: the SDK's client, plus what the SDK lacks.

That is kept connections, deadlines, a writable standard input, and our errors in place of Docker's.
DockerEngine, the image push and spawnctl connect through this module.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.deadline_socket import DeadlineSocket
from orchestrator.adapters.docker import answers
from orchestrator.adapters.docker.sdk import docker
from orchestrator.domain import errors
from orchestrator.slim import structlog

if TYPE_CHECKING:
    import requests  # a dependency of the SDK; only signatures name it

_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 10.0  # for GET: a host that takes longer to answer is not fit
CHANGE_TIMEOUT_S = 30.0  # for create, start, remove: these take seconds on a busy disk
CALL_S = 30.0  # for a whole call, however slowly its answer comes
_OLDEST_API = "1.41"  # Docker 20.10
_KEPT_CONNECTIONS = 16
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}

log = structlog.get_logger()


def connect(base_url: str, *, call_s: float = CALL_S) -> docker.APIClient:
    """Return a client that several threads may share. No call of it takes longer than `call_s`.

    Raises errors of Docker and the system: call it inside `translate_errors`.
    """
    # Ask the engine for its version: Docker 20.10 and 29 have no API version in common. The SDK
    # could ask while it constructs a client, but not over our transport.
    with contextlib.closing(_client(base_url, _OLDEST_API, min(call_s, CALL_S))) as oldest:
        version = oldest.version(api_version=False)["ApiVersion"]
    return _client(base_url, version, call_s)


def _client(base_url: str, version: str, call_s: float) -> docker.APIClient:
    client = docker.APIClient(base_url, version=version, timeout=CHANGE_TIMEOUT_S)
    # Proxies and netrc don't apply to Docker, and looking them up costs time on each call.
    client.trust_env = False
    if base_url.startswith("unix://"):
        client.mount("http+docker://", _Transport(base_url.removeprefix("unix://"), call_s))
    return client


@contextlib.contextmanager
def standard_input(api: docker.APIClient, container_id: str) -> Iterator[socket.socket]:
    """Yield a writable socket to the standard input of a container that has not been started.

    The SDK's attach_socket won't do: it returns a read-only file and leaves the connection open.
    Raises errors.SandboxRefused.
    """
    url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/attach"
    params = {"stdin": 1, "stream": 1}
    with api.post(
        url, params=params, headers=_UPGRADE, stream=True, timeout=CHANGE_TIMEOUT_S
    ) as response:
        if response.status_code not in {101, 200}:
            raise errors.SandboxRefused(f"Docker refused standard input: {response.text.strip()}")
        with socket.socket(fileno=os.dup(response.raw.fileno())) as stdin:
            stdin.settimeout(CHANGE_TIMEOUT_S)
            yield stdin


@contextlib.contextmanager
def translate_errors(action: str, base_url: str) -> Iterator[None]:
    """Turn Docker's and the system's errors in this block into ours.

    `action` completes the message "could not ...". Raises errors.EngineUnavailable when the engine
    does not answer or a GET fails, errors.SandboxRefused when it refuses a change.
    """
    try:
        yield
    except docker.errors.APIError as error:
        message = f"could not {action}: {error.explanation or error}"
        if error.response.request.method == "GET":
            raise errors.EngineUnavailable(message) from error
        raise errors.SandboxRefused(message, code=_refusal_code(message)) from error
    except (docker.errors.DockerException, OSError) as error:
        raise errors.EngineUnavailable(
            f"could not {action}: the Docker engine at {base_url} does not answer ({error})."
            " Check that it runs and that this user may use its socket."
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # The SDK and our calls read fields that every engine has; this answer lacks one.
        log.exception("docker_answer_odd", action=action, engine=base_url)
        problem = answers.odd(f"{type(error).__name__}: {str(error)[:100]}")
        raise errors.EngineUnavailable(
            f"could not {action}: {problem}", code=problem.code
        ) from error


class _Connection(docker.transport.unixconn.UnixHTTPConnection):  # type: ignore[misc]  # the SDK has no types
    """The SDK's connection, except that it closes its socket when it can't connect, and gives up a
    call that takes longer than `call_s` as a whole."""

    def __init__(self, base_url: str, unix_socket: str, timeout: float, call_s: float) -> None:
        super().__init__(base_url, unix_socket, timeout)
        self._call_s = call_s

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:
            self.sock.begin_call(self._call_s)
        super().request(*args, **options)

    def connect(self) -> None:
        unix_socket = DeadlineSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix_socket.begin_call(self._call_s)
        try:
            unix_socket.settimeout(self.timeout)
            unix_socket.connect(self.unix_socket)
        except BaseException:
            unix_socket.close()
            raise
        self.sock = unix_socket


class _Pool(docker.transport.unixconn.UnixHTTPConnectionPool):  # type: ignore[misc]  # the SDK has no types
    call_s: float

    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout, self.call_s)


class _Transport(docker.transport.unixconn.UnixHTTPAdapter):  # type: ignore[misc]  # the SDK has no types
    """The SDK's transport, with one pool for all URLs and a timeout per kind of request.

    The SDK keeps one pool per URL. Each container has its own URLs, so no connection would ever be
    reused.
    """

    def __init__(self, path: str, call_s: float) -> None:
        super().__init__(path)
        self._call_s = call_s

    def get_connection(self, url: str, proxies: object = None) -> _Pool:
        del url, proxies
        with self.pools.lock:
            if "all" not in self.pools:
                self.pools["all"] = _Pool(
                    "http+docker://localhost", self.socket_path, maxsize=_KEPT_CONNECTIONS
                )
                self.pools["all"].call_s = self._call_s
            pool: _Pool = self.pools["all"]
            return pool

    def send(self, request: requests.PreparedRequest, **kwargs: object) -> requests.Response:
        read_timeout_s = _READ_TIMEOUT_S if request.method == "GET" else CHANGE_TIMEOUT_S
        kwargs["timeout"] = (_CONNECT_TIMEOUT_S, read_timeout_s)
        response: requests.Response = super().send(request, **kwargs)
        return response


def _refusal_code(message: str) -> str:
    """Derive our code from Docker's wording: Docker has no codes for these cases."""
    text = message.lower()
    if "no such image" in text:
        return "image_missing"
    if "network" in text and "not found" in text:
        return "network_missing"
    # Without "bind" it is the container's own address that is in use.
    is_bound = "address already in use" in text and "bind" in text
    if "port is already allocated" in text or is_bound:
        return "port_taken"
    if "no space left on device" in text:
        return "disk_full"
    return "create_failed"
