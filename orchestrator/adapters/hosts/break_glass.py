"""A host's Docker without any process of ours: docker-py's own ssh:// transport, over paramiko.

Only `spawnctl hosts direct` uses it. For each connection it runs `docker system dial-stdio` on the
host, it ignores timeouts, and it leaves helper processes behind: good enough for a few calls by a
person.
"""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import paramiko  # type: ignore[import-untyped]  # it has no types
from docker.transport import sshconn

from orchestrator.adapters.docker.flags import INSTANCE_LABEL, SANDBOX_LABEL
from orchestrator.adapters.ssh import connection as ssh
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress, parse_address

_CONNECT_TIMEOUT_S = 10.0
_CALL_TIMEOUT_S = 60
_OLDEST_API = "1.41"  # Docker 20.10
_BASE_URL = "http+docker://ssh"


@dataclass(frozen=True, kw_only=True)
class ListedSandbox:
    """One sandbox of ours, as its Docker describes it. `spawnctl` prints all fields as JSON."""

    sandbox_id: str
    state: str  # "running", "exited", ...
    status: str  # "Up 3 minutes"
    image: str
    ports: tuple[int, ...]  # published ones
    created_s: int  # seconds since 1970


class DirectDocker:
    """One host's Docker. Use it as a context manager, which closes the connection."""

    def __init__(self, address: HostAddress, *, key: Path, pinned: str, instance: str) -> None:
        """Connect at once. `pinned` is the host key's line, `instance` the installation whose
        sandboxes are meant.

        Raises errors.LinkDown (unreachable, host_key_changed, login_refused),
        errors.EngineUnavailable.
        """
        self._address = address
        self._instance = instance
        with _translate_errors(address):
            self._transport = _Transport(str(address), key=key, pinned=pinned)
            try:
                self._api = _client(self._transport)
            except BaseException:
                self._transport.close()
                raise

    def __enter__(self) -> DirectDocker:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def sandboxes(self) -> Sequence[ListedSandbox]:
        """Return all sandboxes of this installation, including those that have stopped."""
        with _translate_errors(self._address):
            return [_listed_sandbox(item) for item in self._containers(SANDBOX_LABEL)]

    def logs(self, sandbox_id: str, lines: int) -> str:
        """Return the last lines that the sandbox printed."""
        with _translate_errors(self._address):
            output: bytes = self._api.logs(self._container_ids(sandbox_id)[0], tail=lines)
        return output.decode(errors="replace")

    def remove(self, sandbox_id: str) -> None:
        """Kill and remove the sandbox."""
        with _translate_errors(self._address):
            for container_id in self._container_ids(sandbox_id):
                self._api.remove_container(container_id, force=True, v=True)

    def _container_ids(self, sandbox_id: str) -> Sequence[str]:
        """By the label: somebody may have renamed a container. Raises errors.NotFound."""
        items = self._containers(f"{SANDBOX_LABEL}={sandbox_id}")
        if not items:
            raise _no_such_sandbox()
        return [item["Id"] for item in items]

    def _containers(self, label: str) -> Sequence[dict[str, Any]]:
        filters = {"label": [f"{INSTANCE_LABEL}={self._instance}", label]}
        items: list[dict[str, Any]] = self._api.containers(all=True, filters=filters)
        return items


class _Transport(sshconn.SSHHTTPAdapter):  # type: ignore[misc]  # the SDK has no types
    """The SDK's transport with our key and the pinned host key: no SSH agent, no user's config."""

    def __init__(self, base_url: str, *, key: Path, pinned: str) -> None:
        self._key = key
        self._pinned = pinned
        super().__init__(base_url, timeout=_CALL_TIMEOUT_S)

    def _create_paramiko_client(self, base_url: str) -> None:
        """Replace the SDK's method, which reads ~/.ssh. The SDK's constructor calls this."""
        address = parse_address(base_url)
        algorithm, data = self._pinned.split()[:2]
        trusted = paramiko.PKey.from_type_string(algorithm, base64.b64decode(data))
        name = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
        self.ssh_client = paramiko.SSHClient()
        self.ssh_client.get_host_keys().add(name, algorithm, trusted)
        self.ssh_client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self.ssh_params = {
            "hostname": address.host,
            "port": address.port,
            "username": address.user,
            "key_filename": str(self._key),
            "allow_agent": False,
            "look_for_keys": False,
            "timeout": _CONNECT_TIMEOUT_S,
            "banner_timeout": _CONNECT_TIMEOUT_S,
            "auth_timeout": _CONNECT_TIMEOUT_S,
        }


def _client(transport: _Transport) -> docker.APIClient:
    """Return a client in the engine's own API version: no version suits all engines."""
    oldest = _client_with_version(transport, _OLDEST_API)
    return _client_with_version(transport, oldest.version(api_version=False)["ApiVersion"])


def _client_with_version(transport: _Transport, version: str) -> docker.APIClient:
    # Given an ssh:// URL, the SDK would construct its own transport, with the user's ~/.ssh.
    api = docker.APIClient("tcp://ssh:1", version=version, timeout=_CALL_TIMEOUT_S)
    api.trust_env = False
    api.mount(_BASE_URL, transport)
    api.base_url = _BASE_URL
    return api


def _listed_sandbox(item: dict[str, Any]) -> ListedSandbox:
    ports = {port["PublicPort"] for port in item.get("Ports") or () if "PublicPort" in port}
    return ListedSandbox(
        sandbox_id=item["Labels"][SANDBOX_LABEL],
        state=item["State"],
        status=item["Status"],
        image=item["Image"],
        ports=tuple(sorted(ports)),
        created_s=int(item["Created"]),
    )


def _no_such_sandbox() -> errors.NotFound:
    return errors.NotFound("there is no such sandbox there", code="sandbox_unknown")


@contextlib.contextmanager
def _translate_errors(address: HostAddress) -> Iterator[None]:
    """Turn errors of paramiko, Docker and the system in this block into ours."""
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise ssh.host_key_changed(address) from error
    except paramiko.AuthenticationException as error:
        raise ssh.login_refused(address) from error
    except paramiko.ssh_exception.NoValidConnectionsError as error:
        raise ssh.connect_error(ConnectionRefusedError(), address) from error
    except (TimeoutError, socket.gaierror) as error:
        raise ssh.connect_error(error, address) from error
    except (paramiko.SSHException, EOFError) as error:
        raise errors.LinkDown(f"no connection to {address}: {error}") from error
    except docker.errors.NotFound as error:
        raise _no_such_sandbox() from error
    except (docker.errors.DockerException, OSError) as error:
        raise errors.EngineUnavailable(
            f"the Docker of {address} does not answer: {error}. Check that it runs, that"
            f" {address.user} may use it, and that the `docker` command is installed there."
        ) from error
