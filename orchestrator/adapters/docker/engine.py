"""ports.Engine over the Docker SDK, and ports.Engines: a Docker socket per host and process.

Services and loops call it from several threads at once. Starting a sandbox is what users wait
for: three calls on kept connections (create, attach, start).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from orchestrator.adapters.docker import client as docker_client
from orchestrator.adapters.docker import egress, flags
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.docker.sdk import docker
from orchestrator.adapters.docker.watch import container_of
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.diagnosis import Container
from orchestrator.domain.pool.host import Host
from orchestrator.ports import Engine, SandboxSpec

_ATTEMPTS = 3


class DockerEngine:
    """One Docker engine, for one instance of ours."""

    def __init__(
        self,
        base_url: str,
        limits: SandboxLimits,
        *,
        run: egress.Runner = egress.run_here,
        guests: Callable[[], Sequence[str] | None] = lambda: None,
    ) -> None:
        """Connects on first use. `run` executes firewall commands on the engine's host; `guests`
        are the addresses that may reach published ports there, None for all."""
        self._base_url = base_url
        self._limits = limits
        self._run = run
        self._guests = guests
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
            _delete(api, flags.container_name(sandbox_id))

    def containers(self) -> Sequence[Container]:
        mine = {"label": [f"{flags.INSTANCE_LABEL}={self._limits.instance}"]}
        with self._talk("list containers") as api:
            found = api.containers(all=True, filters=mine)
        return [container_of(item) for item in found if flags.SANDBOX_LABEL in item["Labels"]]

    def image_present(self, image: str) -> bool:
        with self._talk(f"look for image {image}") as api:
            try:
                found = api.inspect_image(image)
            except docker.errors.NotFound:
                return False
        # The tag is the start of the hash of what it was built from; the label is all of it.
        digest = (found["Config"]["Labels"] or {}).get(flags.RUNTIME_LABEL)
        return digest is None or len(_tag(image)) < 16 or digest.startswith(_tag(image))

    def prune_images(self, keep: Collection[str]) -> int:
        kept = {_tag(image) for image in keep}
        pruned = 0
        with self._talk("prune old runtime images") as api:
            for image in api.images(filters={"label": flags.RUNTIME_LABEL}):
                tags = image["RepoTags"] or []
                ours = [tag for tag in tags if tag.startswith(f"{self._limits.repository}:")]
                if ours and kept.isdisjoint(map(_tag, ours)):
                    pruned += _forget(api, ours, tags)
        return pruned

    def prepare(self) -> Sequence[str]:
        with self._talk(f"make network {self._limits.network}") as api:
            warnings = _ensure_network(api, self._limits)
        guests = self._guests()
        return [*warnings, *egress.install(self._limits.bridge, self._run, guests)]

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
            "root": info["DockerRootDir"],
            "cgroup_version": int(info.get("CgroupVersion") or 1),
            "memory_bytes": info["MemTotal"],
            "cpus": info["NCPU"],
            "security_options": list(info.get("SecurityOptions") or ()),
        }

    def logs(self, sandbox_id: SandboxId, lines: int) -> str:
        with self._talk(f"read logs of sandbox {sandbox_id}") as api:
            try:
                output = api.logs(flags.container_name(sandbox_id), tail=lines)
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


class DockerEngines:
    """ports.Engines: one DockerEngine per host and process."""

    def __init__(
        self,
        limits: SandboxLimits,
        *,
        url_of: Callable[[Host], str] = lambda host: host.docker_url,
        runner_of: Callable[[Host], egress.Runner] = lambda _host: egress.run_here,
        guests_of: Callable[[Host], Sequence[str] | None] = lambda _host: None,
    ) -> None:
        """`url_of` says on which socket of this machine a host's Docker is found, `runner_of` how
        firewall commands are run there, `guests_of` who may reach its published ports. The defaults
        are right for engines of this machine alone."""
        self._limits = limits
        self._url_of = url_of
        self._runner_of = runner_of
        self._guests_of = guests_of
        self._lock = threading.Lock()
        self._engines: dict[HostId, DockerEngine] = {}

    def of(self, host: Host) -> Engine:
        with self._lock:
            if host.id not in self._engines:
                self._engines[host.id] = DockerEngine(
                    self._url_of(host),
                    self._limits,
                    run=self._runner_of(host),
                    guests=lambda: self._guests_of(host),
                )
            return self._engines[host.id]

    def close(self) -> None:
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.close()


def _tag(image: str) -> str:
    return image.rpartition(":")[2]


def _forget(api: docker.APIClient, ours: Sequence[str], tags: Sequence[str]) -> bool:
    """Take an image's tags off, ours last: the last one goes only when no container uses it.
    Another installation that put it there has a tag of its own, and then it stays."""
    others = [tag for tag in tags if tag not in ours]
    alone = all(tag.startswith(f"{flags.RUNTIME_REPOSITORY}:") for tag in others)
    try:
        for tag in (*(others if alone else ()), *ours):
            api.remove_image(tag)
    except docker.errors.APIError as error:
        if error.status_code not in {404, 409}:
            raise
        return False
    return True


def _create(api: docker.APIClient, limits: SandboxLimits, spec: SandboxSpec) -> str | None:
    """The new container's id; None when its name is taken."""
    body = flags.create_body(limits, spec)
    name = flags.container_name(spec.sandbox_id)
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
        found = api.inspect_container(flags.container_name(sandbox_id))
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
    wanted = flags.network_options(limits)
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
            options=flags.network_options(limits),
            labels={flags.INSTANCE_LABEL: limits.instance},
            check_duplicate=True,
        )
    except docker.errors.APIError as error:
        try:  # another process of ours may have been faster
            return dict(api.inspect_network(limits.network))
        except docker.errors.NotFound:
            raise error from None
    return dict(api.inspect_network(limits.network))
