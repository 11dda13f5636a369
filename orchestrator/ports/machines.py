"""Ports to hosts: their Docker engines, the links to them, and pushes of the runtime image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.published_ports import Endpoint
from orchestrator.domain.pool.sandbox_diagnosis import Container


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """Everything that an engine needs to create one sandbox."""

    sandbox_id: SandboxId
    image: str
    publish_address: str  # on the host
    port: int  # on the host; 3000 inside
    agent_folder: str  # on the host, of this sandbox alone; mounted read-only at /run/spawn
    identity: str  # one line of JSON for the agent's standard input; it holds the agent's token
    cpus: float  # how many it may use; `limit_cpus` changes that


class Engine(Protocol):
    """The Docker engine of one host. Raises errors.EngineUnavailable if it does not answer."""

    def start(self, spec: SandboxSpec) -> str:
        """Create and start the container, and return its id.

        Repeating it is safe: a running container of that sandbox is kept, one that was never
        started is replaced. Only one process at a time may start sandboxes. Raises
        errors.SandboxRefused with code image_missing, network_missing, port_taken, disk_full or
        create_failed.
        """

    def limit_cpus(self, container_id: str, cpus: float) -> None:
        """Let a container use so many CPUs, from now on.

        Raises errors.NotFound if there is no such container, and errors.SandboxRefused
        (cpu_limit_refused) if the engine or its runtime can't do that: then the old limit holds.
        """

    def remove(self, sandbox_id: SandboxId) -> None:
        """Kill the container and remove it with its volumes; no error if there is none.

        Returns only once the container is gone.
        """

    def containers(self) -> Sequence[Container]:
        """All containers of this installation, found by label, running or not."""

    def check_open(self) -> None:
        """Raise errors.EngineUnavailable unless it takes new connections.

        An engine that is being ended takes none, but goes on to answer on those that it has, while
        it stops all containers.
        """

    def find_unpublished(self, published: Mapping[SandboxId, Endpoint]) -> Collection[SandboxId]:
        """Which of these sandboxes answer the host at their own address, but not where they are
        published: their published port is dead, and nothing else. The values are its endpoints.
        """

    def image_present(self, image: str) -> bool: ...

    def prepare(self) -> Sequence[str]:
        """Create the network and the egress rules. Safe to repeat.

        Returns warnings for people: the rules that could not be set, and how to set them.
        """

    def sees(self, image: str, folder: str, name: str) -> bool:
        """Whether a container that mounts this folder of the host finds the file `name` there.

        Raises errors.SandboxRefused if Docker starts no container at all.
        """

    def dismantle(self) -> None:
        """Remove the network and the rules, unless a container uses them."""

    def describe(self) -> dict[str, Any]:
        """Facts by name: version, storage_driver, root (its folder), cgroup_version, memory_bytes,
        cpus, security_options.
        """

    def prune_images(self, keep: Collection[str]) -> int:
        """Remove the runtime images that we pushed, except `keep` and those in use.

        Returns how many were removed. Touches no images of others.
        """

    def close(self) -> None: ...


class Engines(Protocol):
    """The engines of all hosts. Keeps one connection per host and process."""

    def for_host(self, host: Host) -> Engine: ...

    def keep(self, hosts: Sequence[Host]) -> None:
        """Close and forget the engines of all other hosts. Waits for no engine."""

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class CommandOutcome:
    """The result of one command."""

    code: int  # exit code; 127 if there is no such program
    output: str  # standard output and standard error


class Fleet(Protocol):
    """The links from the daemon to all hosts. Only the leading daemon has them."""

    def set_hosts(self, hosts: Sequence[Host]) -> None:
        """Connect to these hosts, and close the links to all others."""

    def sandboxes(self, host_ids: Collection[HostId]) -> Collection[SandboxId]:
        """The sandboxes that have an agent socket on one of these hosts over SSH, or get one."""

    def set_sandboxes(
        self,
        host_ids: Collection[HostId],
        living: Mapping[SandboxId, HostId],
        ended: Collection[SandboxId],
    ) -> None:
        """Have agent sockets on these hosts for these sandboxes, and none for those that ended.

        What failed before on any host is tried again. Doesn't wait for the hosts.
        """

    def link_state(self, host: Host) -> LinkState | None:
        """Whether that host answers. None: too early to say, because we have only just started."""

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        """Run a command on the host as root, with `sudo -n` if we log in as another user.

        Raises errors.LinkDown.
        """

    def mark(self, host: Host) -> AbstractContextManager[str]:
        """Leave an empty file in the host's agent folder during the block. Yields its name.

        Raises errors.LinkDown, errors.HostUnfit, errors.StorageUnavailable.
        """

    def containers(self, host: Host) -> Sequence[Container] | None:
        """All our containers on that host, known from Docker's events. None: unknown right now."""

    def take_changed(self) -> Collection[HostId]:
        """The hosts whose containers or link state changed since the last call."""

    def take_changed_links(self) -> Collection[HostId]:
        """The hosts whose link state changed since the last call, known or not: `link_state`."""


@dataclass(frozen=True, kw_only=True)
class LinkGauges:
    """The figures of one link."""

    host: str  # its name
    up: bool  # the host answers on the connection
    docker: bool  # Docker answers
    channels: int  # how many are open
    rtt_s: float | None  # round-trip time of the last answer
    reconnects: int  # since this daemon started
    # Connections of its sandboxes that were refused since then, by reason.
    refusals: Mapping[str, int] = field(default_factory=dict)


class LinkBoard(Protocol):
    """Where the daemon posts the figures of its links, for the API's metrics and views. Lossy."""

    def post(self, gauges: Sequence[LinkGauges]) -> None: ...

    def read(self) -> Sequence[LinkGauges]:
        """The figures that were posted last; empty if that was a while ago."""


class ImagePushes(Protocol):
    """Copies the runtime image to hosts, each copy in a process of its own."""

    def ensure(self, hosts: Sequence[Host]) -> None:
        """Copy the current image to these hosts: to a few at a time, and to none twice at once."""
