"""Hosts: their Docker engines, the links to them, and how images get there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.diagnosis import Container
from orchestrator.domain.pool.host import Host, Reach


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """Everything an engine needs to create one sandbox."""

    sandbox_id: SandboxId
    image: str
    publish_address: str  # on the host
    port: int  # on the host; 3000 inside
    agent_folder: str  # on the host; mounted read-only at /run/spawn
    identity: str  # one line of JSON for the agent's standard input; holds its token


class Engine(Protocol):
    """One host's Docker. Raises errors.EngineUnavailable when it does not answer."""

    def start(self, spec: SandboxSpec, *, replace_stale: bool) -> str:
        """Create and start; returns the container's id. Repeating it is safe: a running container
        of that sandbox is adopted. A container that is created but not started may be somebody
        else's work in progress: raises errors.SandboxRefused(start_in_progress), unless
        `replace_stale`, which removes it first. Raises errors.SandboxRefused with code
        image_missing, port_taken, disk_full or create_failed."""

    def remove(self, sandbox_id: SandboxId) -> None:
        """Stop at once and remove with its volumes; no error when there is none. Returns only
        when the container is gone."""

    def containers(self) -> Sequence[Container]:
        """All of this instance's, found by label, running or not."""

    def image_present(self, image: str) -> bool: ...

    def prepare(self) -> Sequence[str]:
        """Make network and egress rules, idempotently; returns warnings for people (rules that
        could not be set and how to set them)."""

    def dismantle(self) -> None:
        """Remove the network and the rules, if no container uses them."""

    def describe(self) -> dict[str, Any]:
        """version, storage_driver, root (its folder), cgroup_version, memory_bytes, cpus,
        security_options."""

    def prune_images(self, keep: Collection[str]) -> int:
        """Remove runtime images that we pushed there, but for `keep` and what is in use; how
        many. Nobody else's images are touched."""

    def logs(self, sandbox_id: SandboxId, lines: int) -> str:
        """The agent's own last output; "" when there is no container."""

    def close(self) -> None: ...


class Engines(Protocol):
    """Engines by host: connections are kept, one per host and process."""

    def of(self, host: Host) -> Engine: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class CommandOutcome:
    """What became of one command."""

    code: int  # exit code; 127 when there is no such program
    output: str  # both streams


class Fleet(Protocol):
    """The daemon's links to all hosts, and what it sees through them. Held by the leader alone."""

    def keep(self, hosts: Sequence[Host]) -> None:
        """From now on be linked to exactly these hosts."""

    def reach(self, host: Host) -> Reach | None:
        """Whether that host answers; None while there is nothing to say yet: our own start is no
        fault of theirs."""

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        """Run a command there as root (by `sudo -n` where the user isn't root). Raises
        errors.LinkDown."""

    def containers(self, host: Host) -> Sequence[Container] | None:
        """All of ours on that host, as Docker's event stream has it; None when nothing is known
        just now."""

    def take_changed(self) -> Collection[HostId]:
        """Hosts whose containers, or whose reach, changed since this was last asked."""


@dataclass(frozen=True, kw_only=True)
class LinkGauges:
    """How one link is."""

    host: str  # its name
    up: bool  # the connection stands and answers
    docker: bool  # Docker answers
    channels: int  # open just now
    rtt_s: float | None  # of the last byte that came back
    reconnects: int  # since this daemon started


class LinkBoard(Protocol):
    """Where the daemon posts how its links are, for the api's metrics and views. Lossy."""

    def post(self, gauges: Sequence[LinkGauges]) -> None: ...

    def read(self) -> Sequence[LinkGauges]:
        """The last that was posted; empty when that was a while ago."""


class ImagePushes(Protocol):
    """Streams of the runtime image to hosts, each in a process of its own."""

    def ensure(self, hosts: Sequence[Host]) -> None:
        """See to it that these get today's image: a few at a time, and none twice at once."""
