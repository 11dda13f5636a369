"""ports.Engine over the Docker SDK, and ports.Engines for engines on this machine's sockets.

Services and loops call it from several threads at once. Starting a sandbox is what users wait
for: three calls on kept connections (create, attach, start).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import docker
import docker.errors

from orchestrator.adapters import docker_client, docker_flags, egress
from orchestrator.adapters.docker_flags import SandboxLimits
from orchestrator.domain import errors
from orchestrator.domain.diagnosis import Container
from orchestrator.domain.host import Host
from orchestrator.domain.ids import SandboxId
from orchestrator.ports import Engine, SandboxSpec

_ATTEMPTS = 3


class DockerEngine:
    """One Docker engine, for one instance of ours."""

    def __init__(
        self, base_url: str, limits: SandboxLimits, *, run: egress.Runner = egress.run_here
    ) -> None:
        """Connects on first use. `run` executes firewall commands on the engine's host."""
        self._base_url = base_url
        self._limits = limits
        self._run = run
        self._connecting = threading.Lock()
        self._client: docker.APIClient | None = None

    def start(self, spec: SandboxSpec, *, replace_stale: bool) -> str:
        with self._talk(f"start sandbox {spec.sandbox_id}") as api:
            for _ in range(_ATTEMPTS):
                container_id = _create(api, self._limits, spec)
                if container_id is not None:
                    _bring_up(api, container_id, spec.identity)
                    return container_id
                adopted = _settle_existing(api, spec.sandbox_id, replace_stale)
                if adopted is not None:
                    return adopted
        raise errors.SandboxRefused(
            f"somebody else keeps making sandbox {spec.sandbox_id}", code="start_in_progress"
        )

    def remove(self, sandbox_id: SandboxId) -> None:
        with self._talk(f"remove sandbox {sandbox_id}") as api:
            _delete(api, docker_flags.container_name(sandbox_id))

    def containers(self) -> Sequence[Container]:
        mine = {"label": [f"{docker_flags.INSTANCE_LABEL}={self._limits.instance}"]}
        with self._talk("list containers") as api:
            found = api.containers(all=True, filters=mine)
        return [_container(item) for item in found if docker_flags.SANDBOX_LABEL in item["Labels"]]

    def image_present(self, image: str) -> bool:
        with self._talk(f"look for image {image}") as api:
            try:
                api.inspect_image(image)
            except docker.errors.NotFound:
                return False
        return True

    def prepare(self) -> Sequence[str]:
        with self._talk(f"make network {self._limits.network}") as api:
            warnings = _ensure_network(api, self._limits)
        return [*warnings, *egress.install(self._limits.bridge, self._run)]

    def dismantle(self) -> None:
        if self.containers():
            return
        with self._talk(f"remove network {self._limits.network}") as api:
            try:
                api.remove_network(self._limits.network)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                if error.status_code in {403, 409}:  # somebody else's container is connected
                    return
                raise
        # Last, so that there is never a network without its rules.
        egress.withdraw(self._limits.bridge, self._run)

    def describe(self) -> dict[str, Any]:
        with self._talk("describe the engine") as api:
            info = api.info()
        return {
            "version": info["ServerVersion"],
            "storage_driver": info["Driver"],
            "cgroup_version": int(info.get("CgroupVersion") or 1),
            "memory_bytes": info["MemTotal"],
            "cpus": info["NCPU"],
            "security_options": list(info.get("SecurityOptions") or ()),
        }

    def logs(self, sandbox_id: SandboxId, lines: int) -> str:
        with self._talk(f"read logs of sandbox {sandbox_id}") as api:
            try:
                output = api.logs(docker_flags.container_name(sandbox_id), tail=lines)
            except docker.errors.NotFound:
                return ""
        return str(output, "utf-8", "replace")

    def close(self) -> None:
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @contextlib.contextmanager
    def _talk(self, doing: str) -> Iterator[docker.APIClient]:
        """The connected client; what goes wrong with it comes out as one of our errors."""
        try:
            with docker_client.translated(doing, self._base_url):
                with self._connecting:
                    if self._client is None:
                        self._client = docker_client.connect(self._base_url)
                    client = self._client
                yield client
        except errors.EngineUnavailable:
            self.close()  # it may come back as another version: ask again then
            raise


class LocalEngines:
    """ports.Engines: one DockerEngine per Docker socket."""

    def __init__(
        self,
        limits: SandboxLimits,
        *,
        runner_of: Callable[[Host], egress.Runner] = lambda _host: egress.run_here,
    ) -> None:
        """`runner_of` says how to run firewall commands on a host. The default is right only for
        engines of this machine: a forwarded socket looks the same and needs a runner over there.
        """
        self._limits = limits
        self._runner_of = runner_of
        self._lock = threading.Lock()
        self._engines: dict[str, DockerEngine] = {}

    def of(self, host: Host) -> Engine:
        with self._lock:
            if host.docker_url not in self._engines:
                self._engines[host.docker_url] = DockerEngine(
                    host.docker_url, self._limits, run=self._runner_of(host)
                )
            return self._engines[host.docker_url]

    def close(self) -> None:
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.close()


def _create(api: docker.APIClient, limits: SandboxLimits, spec: SandboxSpec) -> str | None:
    """The new container's id; None when its name is taken."""
    body = docker_flags.create_body(limits, spec)
    name = docker_flags.container_name(spec.sandbox_id)
    try:
        return str(api.create_container_from_config(body, name)["Id"])
    except docker.errors.APIError as error:
        if error.status_code == 409:
            return None
        raise


def _bring_up(api: docker.APIClient, container_id: str, identity: str) -> None:
    """Start it with its identity waiting on standard input, or leave nothing behind."""
    try:
        with docker_client.standard_input(api, container_id) as stdin:
            stdin.sendall(identity.encode() + b"\n")
            api.start(container_id)
    except BaseException:  # also when the job that waits here is being timed out
        # By id: the name may be another maker's by now. What can't be removed, reconcile will.
        with contextlib.suppress(errors.SpawnError, docker.errors.DockerException, OSError):
            _delete(api, container_id)
        raise


def _settle_existing(
    api: docker.APIClient, sandbox_id: SandboxId, replace_stale: bool
) -> str | None:
    """Deal with a container that has the sandbox's name: its id when it is to be adopted, None
    when it is out of the way."""
    try:
        found = api.inspect_container(docker_flags.container_name(sandbox_id))
    except docker.errors.NotFound:
        return None
    if found["State"]["Running"]:
        return str(found["Id"])
    if found["State"]["Status"] == "created" and not replace_stale:
        raise errors.SandboxRefused(
            f"sandbox {sandbox_id} is being started by somebody else", code="start_in_progress"
        )
    _delete(api, found["Id"])
    return None


def _delete(api: docker.APIClient, container: str) -> None:
    """Kill and remove, by name or id; returns when it is gone."""
    for _ in range(_ATTEMPTS):
        try:
            api.remove_container(container, v=True, force=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            if "already in progress" in str(error.explanation):
                with contextlib.suppress(docker.errors.NotFound):
                    api.wait(container, condition="removed")
        else:
            return
    raise errors.Temporary(f"Docker does not finish removing {container}", code="remove_failed")


def _ensure_network(api: docker.APIClient, limits: SandboxLimits) -> list[str]:
    """Make the network unless it is there; a warning when it is there and not as it should be."""
    try:
        found = api.inspect_network(limits.network)
    except docker.errors.NotFound:
        found = _make_network(api, limits)
    wanted = docker_flags.network_options(limits)
    if not found["EnableIPv6"] and wanted.items() <= found["Options"].items():
        return []
    return [
        f"Network {limits.network} has other options than sandboxes need. End its sandboxes and"
        f" run: docker network rm {limits.network}"
    ]


def _make_network(api: docker.APIClient, limits: SandboxLimits) -> dict[str, Any]:
    try:
        api.create_network(
            limits.network,
            driver="bridge",
            options=docker_flags.network_options(limits),
            labels={docker_flags.INSTANCE_LABEL: limits.instance},
            check_duplicate=True,
        )
    except docker.errors.APIError as error:
        try:  # another process of ours may have been faster
            return dict(api.inspect_network(limits.network))
        except docker.errors.NotFound:
            raise error from None
    return dict(api.inspect_network(limits.network))


def _container(item: dict[str, Any]) -> Container:
    running = item["State"] == "running"
    return Container(
        id=item["Id"],
        sandbox_id=SandboxId(item["Labels"][docker_flags.SANDBOX_LABEL]),
        running=running,
        exit_note="" if running else item["Status"],
    )
