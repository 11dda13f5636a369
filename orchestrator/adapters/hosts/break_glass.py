"""A host's Docker without any of our processes: docker-py's own ssh:// transport, over paramiko.

Called by `spawnctl hosts direct` alone. It runs `docker system dial-stdio` over there for each
connection, ignores deadlines and leaves helpers behind: good for a few calls by a person.
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

from orchestrator.adapters.docker.flags import INSTANCE_LABEL, SANDBOX_LABEL, container_name
from orchestrator.adapters.ssh import connection
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.host_fields import HostAddress, parse_address

_CONNECT_S = 10.0
_CALL_S = 60
_OLDEST_API = "1.41"  # Docker 20.10
_BASE_URL = "http+docker://ssh"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One of our sandboxes, as its Docker describes it."""

    sandbox_id: str
    state: str  # "running", "exited", ...
    status: str  # "Up 3 minutes"
    image: str
    ports: tuple[int, ...]  # published ones
    created_s: int  # seconds since 1970


class Direct:
    """One host's Docker: `with Direct(...) as host`."""

    def __init__(self, address: HostAddress, *, key: Path, pinned: str, instance: str) -> None:
        """`pinned` is the host key's line, `instance` whose sandboxes are meant. Connects at once.
        Raises LinkDown (unreachable, host_key_changed, login_refused), EngineUnavailable."""
        self._address = address
        self._instance = instance
        with _translated(address):
            self._adapter = _Adapter(str(address), key=key, pinned=pinned)
            try:
                self._api = _client(self._adapter)
            except BaseException:
                self._adapter.close()
                raise

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def sandboxes(self) -> Sequence[Seen]:
        """All of this installation's, also those that have stopped."""
        wanted = {"label": f"{INSTANCE_LABEL}={self._instance}"}
        with _translated(self._address):
            found = self._api.containers(all=True, filters=wanted)
        return [_seen(one) for one in found if SANDBOX_LABEL in one["Labels"]]

    def logs(self, sandbox_id: str, lines: int) -> str:
        """The last lines that it printed."""
        with _translated(self._address):
            said: bytes = self._api.logs(_name(sandbox_id), tail=lines)
        return said.decode(errors="replace")

    def remove(self, sandbox_id: str) -> None:
        """Kill and remove it."""
        with _translated(self._address):
            self._api.remove_container(_name(sandbox_id), force=True, v=True)


class _Adapter(sshconn.SSHHTTPAdapter):  # type: ignore[misc]  # the SDK has no types
    """The SDK's transport with our key and the pinned host key: nobody's agent, nobody's config."""

    def __init__(self, base_url: str, *, key: Path, pinned: str) -> None:
        self._key = key
        self._pinned = pinned
        super().__init__(base_url, timeout=_CALL_S)

    def _create_paramiko_client(self, base_url: str) -> None:
        """What the SDK's constructor calls; its own reads ~/.ssh."""
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
            "timeout": _CONNECT_S,
            "banner_timeout": _CONNECT_S,
            "auth_timeout": _CONNECT_S,
        }


def _client(adapter: _Adapter) -> docker.APIClient:
    """Speaking the engine's own version, as no single one is known to all of them."""
    first = _speaking(adapter, _OLDEST_API)
    return _speaking(adapter, first.version(api_version=False)["ApiVersion"])


def _speaking(adapter: _Adapter, version: str) -> docker.APIClient:
    # Given an ssh:// URL the SDK would make a transport of its own, with the user's ~/.ssh.
    api = docker.APIClient("tcp://ssh:1", version=version, timeout=_CALL_S)
    api.trust_env = False
    api.mount(_BASE_URL, adapter)
    api.base_url = _BASE_URL
    return api


def _seen(found: dict[str, Any]) -> Seen:
    ports = {one["PublicPort"] for one in found.get("Ports") or () if "PublicPort" in one}
    return Seen(
        sandbox_id=found["Labels"][SANDBOX_LABEL],
        state=found["State"],
        status=found["Status"],
        image=found["Image"],
        ports=tuple(sorted(ports)),
        created_s=int(found["Created"]),
    )


def _name(sandbox_id: str) -> str:
    return container_name(SandboxId(sandbox_id))


@contextlib.contextmanager
def _translated(address: HostAddress) -> Iterator[None]:
    """Whatever goes wrong comes out as one of our errors."""
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise connection.key_changed(address) from error
    except paramiko.AuthenticationException as error:
        raise connection.login_refused(address) from error
    except paramiko.ssh_exception.NoValidConnectionsError as error:
        raise connection.translated(ConnectionRefusedError(), address) from error
    except (TimeoutError, socket.gaierror) as error:
        raise connection.translated(error, address) from error
    except (paramiko.SSHException, EOFError) as error:
        raise errors.LinkDown(f"no connection to {address}: {error}") from error
    except docker.errors.NotFound as error:
        raise errors.NotFound("there is no such sandbox there", code="sandbox_unknown") from error
    except (docker.errors.DockerException, OSError) as error:
        raise errors.EngineUnavailable(
            f"the Docker of {address} does not answer: {error}. Is it running, may {address.user}"
            " use it, and is its `docker` command there?"
        ) from error
