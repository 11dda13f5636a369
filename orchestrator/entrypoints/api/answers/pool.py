"""The pool, as operators see it: hosts, sandboxes, queues, and what is wrong."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from orchestrator.domain.pool.host import Drain, HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.entrypoints.api.answers.base import Time
from orchestrator.entrypoints.api.answers.sessions import Sandbox


class Link(TypedDict):
    """The SSH link to a host."""

    up: bool
    docker: Annotated[bool, Field(description="Docker answers over it.")]
    channels: int
    rtt_ms: float | None
    reconnects: int


class Host(TypedDict):
    """A host of the pool."""

    name: str
    host_id: str
    state: HostState
    reason: Annotated[str, Field(description="Why it isn't up; empty: it is.")]
    since: Time
    cordoned: bool
    drain: Drain
    draining: bool
    slots: int
    used: int
    starting: int
    warm: int
    region: str
    labels: dict[str, str]
    address: str
    publish_address: str
    host_key: str
    image: str
    shortage: Annotated[str, Field(description="What it has too little of; empty: of nothing.")]
    ports_set_aside: list[int]
    cpus: Annotated[int, Field(description="That its Docker has; 0: not known yet.")]
    changes_cpus: Annotated[
        bool | None,
        Field(
            description="Whether its Docker can change the CPU limit of a sandbox that runs; null:"
            " nobody has tried. If not, apps start with no more CPUs than they run with."
        ),
    ]
    starts_at_once: int
    generation: int
    seen_at: Time | None
    link: Link | None


class Hosts(TypedDict):
    """All hosts."""

    hosts: list[Host]


class HostSandbox(TypedDict):
    """A sandbox on a host."""

    sandbox_id: str
    state: SandboxState
    session_id: str | None
    port: int
    image: str
    created_at: Time
    reason: str


class HostWithSandboxes(Host):
    """A host and its sandboxes."""

    sandboxes: list[HostSandbox]


class LeavingHost(TypedDict):
    """A host that is being removed."""

    name: str
    drain: Drain


class PoolCounts(TypedDict):
    """How much the pool has of what."""

    warm_target: int
    creating: int
    warm: int
    claimed: int
    stopping: int
    broken: int
    slots: int
    free_slots: int
    free_slots_wanted: int
    free_slots_short: int
    waiting: int
    queues: Annotated[
        dict[str, int] | None,
        Field(description="Nudges that wait, by queue; null: Redis doesn't answer."),
    ]
    hosts: list[Host]


class Pool(PoolCounts):
    """The pool, with its sandboxes."""

    sandboxes: list[Sandbox]


class Check(TypedDict):
    """Whether a part works, and what is wrong if it doesn't."""

    ok: bool
    detail: str
    proxy: NotRequired[Annotated[bool, Field(description="The proxy in the environment is meant.")]]
    settings: NotRequired[Annotated[list[str], Field(description="Whose keys are refused.")]]


class Readiness(TypedDict):
    """Whether a new session could get its link."""

    ready: bool
    checks: dict[str, Check]


class Health(TypedDict):
    """A sign of life."""

    status: str


class Overview(TypedDict):
    """The whole installation."""

    version: str
    started_at: Time
    sessions: dict[SessionState, int]
    pool: PoolCounts
    checks: dict[str, Check]
    warnings: list[str]
