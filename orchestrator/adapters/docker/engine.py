"""ports.Engine on the Docker SDK, and ports.Engines, which keeps one engine per host.

Services and loops call these from several threads at once. Users wait while a sandbox starts, so a
start takes three calls (create, attach, start) on connections that stay open.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from orchestrator.adapters.docker import answers, egress, flags, network, reach, visibility
from orchestrator.adapters.docker import client as docker_client
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.docker.sdk import docker
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.published_ports import Endpoint
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.ports import Engine, SandboxSpec

_ATTEMPTS = 3


class AgentSockets(Protocol):
    """The agent sockets of one host."""

    def offer(self, sandbox_id: SandboxId) -> None:
        """Make the sandbox's agent folder, before it is mounted. Raises errors.Temporary."""

    def withdraw(self, sandbox_id: SandboxId) -> None:
        """Remove the folder and its socket, if it can be reached now."""


class NoAgentSockets:
    """For engines whose sandboxes need none: who starts them makes the folders."""

    def offer(self, sandbox_id: SandboxId) -> None:
        """Nothing to make."""

    def withdraw(self, sandbox_id: SandboxId) -> None:
        """Nothing to remove."""


class DockerEngine:
    """One Docker engine, as one installation of ours uses it. See ports.Engine for each method."""

    def __init__(
        self,
        base_url: str,
        limits: SandboxLimits,
        *,
        run: egress.Runner = egress.run_locally,
        allowlist: Callable[[], Sequence[str] | None] = lambda: None,
        sockets: AgentSockets | None = None,
        check_term: Callable[[], None] = lambda: None,
    ) -> None:
        """Connect on first use, not here.

        `run` executes firewall commands on the engine's host. `allowlist` returns the addresses
        that may reach its published ports; None allows everybody. `sockets` are offered before a
        sandbox starts and withdrawn after it is removed. `check_term` is called before each call to
        Docker, and raises errors.TermOver if we must not act any more.
        """
        self._base_url = base_url
        self._limits = limits
        self._run = run
        self._allowlist = allowlist
        self._sockets = sockets or NoAgentSockets()
        self._check_term = check_term
        self._client_lock = threading.Lock()  # never held while we wait for the engine
        self._client: docker.APIClient | None = None
        self._maps_users: bool | None = None  # None: not asked yet

    def start(self, spec: SandboxSpec) -> str:
        self._sockets.offer(spec.sandbox_id)
        with self._connected(f"start sandbox {spec.sandbox_id}") as api:
            body = flags.create_body(self._limits, spec, user=self._user_of(api, spec))
            for _ in range(_ATTEMPTS):
                self._check_term()
                container_id = _create_container(api, body, spec.sandbox_id)
                if container_id is not None:
                    _start_with_identity(api, container_id, spec.identity, self._check_term)
                    return container_id
                adopted_id = _adopt_or_remove(api, spec.sandbox_id)
                if adopted_id is not None:
                    return adopted_id
        raise errors.SandboxRefused(
            f"another process keeps creating sandbox {spec.sandbox_id}", code="create_failed"
        )

    def limit_cpus(self, container_id: str, cpus: float) -> None:
        action = f"limit container {container_id:.12} to {cpus:g} CPUs"
        quota = flags.cpu_quota(cpus)
        with self._connected(action) as api:
            try:
                api.update_container(
                    container_id, cpu_period=quota["CpuPeriod"], cpu_quota=quota["CpuQuota"]
                )
            except docker.errors.NotFound as error:
                raise errors.NotFound(f"could not {action}: it is gone") from error
            except docker.errors.APIError as error:
                raise errors.SandboxRefused(
                    f"could not {action}: {error.explanation or error}", code="cpu_limit_refused"
                ) from error

    def remove(self, sandbox_id: SandboxId) -> None:
        with self._connected(f"remove sandbox {sandbox_id}") as api:
            if not _remove_container(api, flags.container_name(sandbox_id)):
                # It is gone, or somebody has renamed it.
                for container in self._list(api, f"{flags.SANDBOX_LABEL}={sandbox_id}"):
                    _remove_container(api, container.id)
        self._sockets.withdraw(sandbox_id)

    def containers(self) -> Sequence[Container]:
        with self._connected("list containers") as api:
            return self._list(api)

    def check_open(self) -> None:
        with (
            docker_client.translate_errors("connect", self._base_url),
            contextlib.closing(docker_client.connect(self._base_url)),
        ):
            pass  # it has answered on a connection of its own

    def find_unpublished(self, published: Mapping[SandboxId, Endpoint]) -> Collection[SandboxId]:
        filters = {"label": [f"{flags.INSTANCE_LABEL}={self._limits.instance}"]}
        with self._connected("list containers") as api:
            addresses = reach.addresses_of(api.containers(filters=filters))
        return reach.find_unpublished(self._run, published, addresses)

    def image_present(self, image: str) -> bool:
        with self._connected(f"look for image {image}") as api:
            try:
                details = api.inspect_image(image)
            except docker.errors.NotFound:
                return False
        # The label holds the full hash of the image's sources, the tag its first characters. If
        # they differ, somebody put our tag on another build.
        digest = (details["Config"]["Labels"] or {}).get(flags.RUNTIME_LABEL)
        return digest is None or len(_tag_of(image)) < 16 or digest.startswith(_tag_of(image))

    def prune_images(self, keep: Collection[str]) -> int:
        kept_tags = {_tag_of(image) for image in keep}
        pruned = 0
        with self._connected("prune old runtime images") as api:
            for image in api.images(filters={"label": flags.RUNTIME_LABEL}):
                names = image["RepoTags"] or []
                our_names = [
                    name for name in names if name.startswith(f"{self._limits.repository}:")
                ]
                if our_names and kept_tags.isdisjoint(map(_tag_of, our_names)):
                    pruned += _remove_image(api, our_names, names)
        return pruned

    def prepare(self) -> Sequence[str]:
        with self._connected(f"make network {self._limits.network}") as api:
            warnings = network.ensure(api, self._limits)
        allowlist = self._allowlist()
        return [*warnings, *egress.install(self._limits.bridge, self._run, allowlist)]

    def sees(self, image: str, folder: str, name: str) -> bool:
        with self._connected(f"start a container that looks into {folder}") as api:
            return visibility.sees(api, self._limits, image, folder, name)

    def dismantle(self) -> None:
        if self.containers():
            return
        with self._connected(f"remove network {self._limits.network}") as api:
            visibility.remove_probe(api, self._limits)
            try:
                api.remove_network(self._limits.network)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                if error.status_code in {403, 409}:  # a container that isn't ours is connected
                    return
                raise
        # Last, so that the network never exists without its rules.
        egress.withdraw(self._limits.bridge, self._run)

    def describe(self) -> dict[str, Any]:
        with self._connected("describe the engine") as api:
            info = api.info()
        return dataclasses.asdict(answers.parse_info(info))

    def close(self) -> None:
        with self._client_lock:
            client, self._client = self._client, None
            self._maps_users = None
        if client is not None:
            client.close()

    def _list(self, api: docker.APIClient, *labels: str) -> Sequence[Container]:
        """The sandboxes of this installation that have all these labels."""
        filters = {"label": [f"{flags.INSTANCE_LABEL}={self._limits.instance}", *labels]}
        return list(answers.parse_containers(api.containers(all=True, filters=filters)))

    def _user_of(self, api: docker.APIClient, spec: SandboxSpec) -> int:
        """The user for a new sandbox. Asks the engine once per connection whether it maps users."""
        if self._maps_users is None:
            self._maps_users = answers.parse_info(api.info()).maps_users
        return flags.user_of(spec.port, is_mapped=self._maps_users)

    @contextlib.contextmanager
    def _connected(self, action: str) -> Iterator[docker.APIClient]:
        """Yield the connected client, and turn its errors in this block into ours."""
        self._check_term()
        try:
            with docker_client.translate_errors(action, self._base_url):
                client = self._client or self._keep(docker_client.connect(self._base_url))
                self._check_term()  # connecting may have taken long
                yield client
        except errors.EngineUnavailable:
            self.close()  # the engine may return with another version: the next call asks again
            raise

    def _keep(self, new: docker.APIClient) -> docker.APIClient:
        """Keep this client for later calls, unless another thread was faster: return that one's."""
        with self._client_lock:
            if self._client is None:
                self._client = new
            client = self._client
        if client is not new:
            new.close()
        return client


class DockerEngines:
    """ports.Engines: one DockerEngine per host, kept while the host is in the pool."""

    def __init__(
        self,
        limits: SandboxLimits,
        *,
        url_of: Callable[[Host], str] = lambda host: host.docker_url,
        runner_of: Callable[[Host], egress.Runner] = lambda _host: egress.run_locally,
        allowlist_of: Callable[[Host], Sequence[str] | None] = lambda _host: None,
        sockets_of: Callable[[Host], AgentSockets] = lambda _host: NoAgentSockets(),
        check_term: Callable[[], None] = lambda: None,
    ) -> None:
        """The defaults suit engines of this machine only, of a process that needs no lease.

        `url_of` returns the URL of the local socket at which a host's Docker is reached.
        `runner_of` returns what executes firewall commands on a host. `allowlist_of` returns the
        addresses that may reach a host's published ports; None allows everybody. `sockets_of`
        returns what makes the agent sockets on a host. `check_term` is DockerEngine's.
        """
        self._limits = limits
        self._check_term = check_term
        self._url_of = url_of
        self._runner_of = runner_of
        self._allowlist_of = allowlist_of
        self._sockets_of = sockets_of
        self._lock = threading.Lock()
        self._engines: dict[HostId, DockerEngine] = {}

    def for_host(self, host: Host) -> Engine:
        with self._lock:
            if host.id not in self._engines:
                self._engines[host.id] = DockerEngine(
                    self._url_of(host),
                    self._limits,
                    run=self._runner_of(host),
                    allowlist=lambda: self._allowlist_of(host),
                    sockets=self._sockets_of(host),
                    check_term=self._check_term,
                )
            return self._engines[host.id]

    def keep(self, hosts: Sequence[Host]) -> None:
        kept_ids = {host.id for host in hosts}
        with self._lock:
            gone_ids = self._engines.keys() - kept_ids
            gone = [self._engines.pop(host_id) for host_id in gone_ids]
        for engine in gone:
            engine.close()

    def close(self) -> None:
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.close()


def _tag_of(image: str) -> str:
    return image.rpartition(":")[2]


def _remove_image(api: docker.APIClient, our_names: Sequence[str], names: Sequence[str]) -> bool:
    """Remove an image's names, ours last. Return False if a container uses it.

    Docker refuses to remove the last name of an image that is in use. If another installation has
    put the image there too, it has a name of its own, and the image stays.
    """
    other_names = [name for name in names if name not in our_names]
    only_ours = all(name.startswith(f"{flags.RUNTIME_REPOSITORY}:") for name in other_names)
    try:
        for name in (*(other_names if only_ours else ()), *our_names):
            api.remove_image(name)
    except docker.errors.APIError as error:
        if error.status_code not in {404, 409}:
            raise
        return False
    return True


def _create_container(
    api: docker.APIClient, body: dict[str, Any], sandbox_id: SandboxId
) -> str | None:
    """Create the sandbox's container. Return its id, or None if its name is taken."""
    name = flags.container_name(sandbox_id)
    try:
        return str(api.create_container_from_config(body, name)["Id"])
    except docker.errors.APIError as error:
        if error.status_code == 409:
            return None
        raise


def _start_with_identity(
    api: docker.APIClient, container_id: str, identity: str, check_term: Callable[[], None]
) -> None:
    """Start a container with the identity on its standard input. Remove it if that fails."""
    try:
        with docker_client.standard_input(api, container_id) as stdin:
            stdin.sendall(identity.encode() + b"\n")
            check_term()
            api.start(container_id)
    except BaseException:
        # By id: another process may have taken the name by now. If this fails too, the reconcile
        # loop removes the container.
        with contextlib.suppress(errors.SpawnError, docker.errors.DockerException, OSError):
            _remove_container(api, container_id)
        raise


def _adopt_or_remove(api: docker.APIClient, sandbox_id: SandboxId) -> str | None:
    """Deal with the container that already has this sandbox's name.

    Return its id if it runs. Otherwise it has exited, or an earlier daemon died before it started
    it: remove it and return None.
    """
    try:
        container = api.inspect_container(flags.container_name(sandbox_id))
    except docker.errors.NotFound:
        return None
    if container["State"]["Running"]:
        return str(container["Id"])
    _remove_container(api, container["Id"])
    return None


def _remove_container(api: docker.APIClient, container: str) -> bool:
    """Kill and remove a container by its id or name, and return once it is gone. False: there is
    none.

    Raises errors.Temporary (remove_failed).
    """
    for _ in range(_ATTEMPTS):
        try:
            api.remove_container(container, v=True, force=True)
        except docker.errors.NotFound:
            return False
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            if "already in progress" in str(error.explanation):
                with contextlib.suppress(docker.errors.NotFound):
                    api.wait(container, condition="removed")
        else:
            return True
    raise errors.Temporary(f"Docker does not finish removing {container}", code="remove_failed")
