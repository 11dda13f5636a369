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
from orchestrator.ports.records import (
    Audit,
    AuditEntry,
    BundleRecords,
    Generations,
    Keys,
    LeaseRecord,
    Leases,
    LogLine,
    Logs,
    Usage,
)
from orchestrator.ports.store import (
    Changes,
    Hosts,
    Idempotency,
    NewSandbox,
    Sandboxes,
    SessionPosition,
    Sessions,
    Store,
)

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
    "LeaseRecord",
    "Leases",
    "LinkBoard",
    "LinkGauges",
    "Listener",
    "LogLine",
    "Logs",
    "NewSandbox",
    "NudgeQueue",
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
