"""Deps: the ports and the policy that every service function takes as its first argument.

Bootstrap builds them once per process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator import ports
from orchestrator.contract.uploads import UPLOAD_MAX_BYTES
from orchestrator.domain.llm.budgets import Budgets
from orchestrator.domain.llm.pricing import PriceList
from orchestrator.domain.people.tokens import Tokens
from orchestrator.domain.pool.cpu_limits import CpuLimits
from orchestrator.domain.sessions.bundles import StorageLimits
from orchestrator.domain.sessions.planner import Deadlines
from orchestrator.services.rates import Rate, Rates, Samples

REFUSALS_PERIOD_S = 60.0  # one row in the audit log per sandbox and kind of refusal
# Of a session's log lines, in bytes; its agent sends half of it at most, as JSON.
LOG_RATE = Rate(per_s=64 * 1024, burst=1024 * 1024)
REPORT_RATE = Rate(per_s=20, burst=60)  # of a session; its agent sends five a second at most


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The settings that services need. Operators choose them."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    warm_target: int = 3
    warm_interpreters: bool = True  # sandboxes keep a Python and a Node ready while there is room
    free_slots: int = 2  # slots that the warm pool leaves free for sessions
    cpus: CpuLimits = field(default_factory=CpuLimits)
    disk_floor_bytes: int = 1024**3  # a host with less free disk gets no new sandboxes
    memory_floor_bytes: int = 256 * 1024**2  # a host with less available memory gets none either
    storage_floor_bytes: int = 0  # with less free disk, the control plane takes in nothing new
    agent_folder_of_hosts: str = "/run/spawnai"  # on hosts reached by SSH
    ttl_default_s: int = 24 * 3600
    queue_max: int = 500
    ended_per_user: int = 200  # sessions that are kept after their end
    ended_total: int = 10_000
    bundle_retention_s: int = 7 * 24 * 3600
    storage: StorageLimits = field(default_factory=StorageLimits)
    audit_retention_s: int = 90 * 24 * 3600
    model: str = ""
    max_tokens: int = 32_000
    provider_silence_s: float = 120.0  # how long the gateway waits for a silent provider
    can_generate: bool = False  # whether a provider of the model is configured
    models: tuple[str, ...] = ()  # the models that the gateway lets through
    budgets: Budgets = field(default_factory=Budgets)
    prices: PriceList = field(default_factory=PriceList)
    share_between_users: bool = False  # share answers and generations of equal requests
    upload_max_bytes: int = UPLOAD_MAX_BYTES  # of a request to an app
    start_timeout_s: float = 45.0  # the agent's own limit; less than deadlines.deploying_s


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The ports, wired to their adapters."""

    store: ports.Store
    engines: ports.Engines
    queue: ports.NudgeQueue
    events: ports.Events
    probe: ports.Probe
    port_looks: ports.PortLooks
    bundles: ports.Bundles
    catalog: ports.Catalog
    board: ports.LinkBoard
    listener: ports.Listener
    gateway: ports.GatewayStatus
    clock: ports.Clock
    tokens: Tokens
    image: Callable[[], str]  # returns the reference of today's runtime image
    spread: Callable[[], float]  # returns a uniform random number in [0, 1), for jitter
    policy: Policy
    free_storage: Callable[[], int]  # returns the free bytes of the disk with our state folder
    reserve: ports.Reserve
    # What this process remembers of its callers.
    refusals: Samples = field(default_factory=lambda: Samples(REFUSALS_PERIOD_S))
    report_rates: Rates = field(default_factory=lambda: Rates(REPORT_RATE))
    log_rates: Rates = field(default_factory=lambda: Rates(LOG_RATE))
