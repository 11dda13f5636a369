"""What the services need from the outside world, as Protocols that name their errors.

Adapters implement them, tests/fakes has hand-written fakes, and tests/contract runs one suite on
both. All times are timezone-aware UTC. Every call may raise errors.Temporary if its server doesn't
answer.
"""

from orchestrator.ports.infrastructure import (
    Bundles,
    Catalog,
    Clock,
    Events,
    GatewayStatus,
    Listener,
    NudgeQueue,
    PortLooks,
    Probe,
    Proxy,
    Reserve,
    Template,
    Term,
)
from orchestrator.ports.machines import (
    CommandOutcome,
    Engine,
    Engines,
    Fleet,
    ImagePushes,
    LinkBoard,
    LinkGauges,
    SandboxSpec,
)
from orchestrator.ports.pool import Hosts, Sandboxes
from orchestrator.ports.pool_reads import PoolReads
from orchestrator.ports.records import (
    LOG_MAX_BYTES,
    RELEASED,
    Audit,
    AuditEntry,
    BundleRecords,
    Changes,
    Generations,
    Keys,
    LeaseRecord,
    Leases,
    LogLine,
    Logs,
    Usage,
)
from orchestrator.ports.sessions import Sessions
from orchestrator.ports.store import Store
from orchestrator.ports.store_inputs import Idempotency, NewSandbox, SessionPosition

__all__ = [
    "Audit",
    "AuditEntry",
    "BundleRecords",
    "Bundles",
    "Catalog",
    "Changes",
    "Clock",
    "CommandOutcome",
    "Engine",
    "Engines",
    "Events",
    "Fleet",
    "GatewayStatus",
    "Generations",
    "Hosts",
    "Idempotency",
    "ImagePushes",
    "Keys",
    "RELEASED",
    "LeaseRecord",
    "Leases",
    "LinkBoard",
    "LinkGauges",
    "Listener",
    "LOG_MAX_BYTES",
    "LogLine",
    "Logs",
    "NewSandbox",
    "NudgeQueue",
    "PoolReads",
    "PortLooks",
    "Probe",
    "Proxy",
    "Reserve",
    "SandboxSpec",
    "Sandboxes",
    "SessionPosition",
    "Sessions",
    "Store",
    "Template",
    "Term",
    "Usage",
]
