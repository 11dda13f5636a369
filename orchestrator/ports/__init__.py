"""What the services need from the outside, as Protocols that name their errors.

Adapters implement these; tests/fakes has hand-written fakes; tests/contract runs one suite on both.
All times are timezone-aware UTC. Everything may raise errors.Temporary when its server is away.
"""

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
    Sessions,
    Store,
)
from orchestrator.ports.surroundings import (
    Bundles,
    Catalog,
    Clock,
    Events,
    NudgeQueue,
    Probe,
    Proxy,
    Template,
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
    "Generations",
    "Hosts",
    "Idempotency",
    "ImagePushes",
    "Keys",
    "Leases",
    "LinkBoard",
    "LinkGauges",
    "LogLine",
    "Logs",
    "NewSandbox",
    "NudgeQueue",
    "Probe",
    "Proxy",
    "SandboxSpec",
    "Sandboxes",
    "Sessions",
    "Store",
    "Template",
    "Usage",
]
