"""What every use case is given: the ports and the few figures that aren't theirs to choose.

Built once per process by bootstrap; passed to services as their first argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator import ports
from orchestrator.domain.llm.budgets import Budgets
from orchestrator.domain.llm.pricing import PriceList
from orchestrator.domain.people.tokens import Tokens
from orchestrator.domain.sessions.planner import Deadlines


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Figures that operators may set."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    warm_target: int = 3
    free_slots: int = 2  # that warm sandboxes leave to sessions
    disk_floor_bytes: int = 1024**3  # free on a host's disk, or it gets no new sandboxes
    memory_floor_bytes: int = 256 * 1024**2  # the same for its memory
    agent_folder_of_hosts: str = "/run/spawnai"  # on hosts reached by SSH
    ttl_default_s: int = 24 * 3600
    bundle_retention_s: int = 7 * 24 * 3600
    model: str = ""
    max_tokens: int = 32_000
    can_generate: bool = False  # whether a Claude key is configured
    models: tuple[str, ...] = ()  # that the gateway lets through
    budgets: Budgets = field(default_factory=Budgets)
    prices: PriceList = field(default_factory=PriceList)
    share_between_users: bool = False  # answers and generations of equal requests
    start_timeout_s: float = 45.0  # given to the agent; below deadlines.deploying_s


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The ports, wired."""

    store: ports.Store
    engines: ports.Engines
    queue: ports.NudgeQueue
    events: ports.Events
    probe: ports.Probe
    bundles: ports.Bundles
    catalog: ports.Catalog
    board: ports.LinkBoard
    clock: ports.Clock
    tokens: Tokens
    image: Callable[[], str]  # reference of the runtime image for new sandboxes
    spread: Callable[[], float]  # uniform random number in [0, 1), for jitter
    policy: Policy
