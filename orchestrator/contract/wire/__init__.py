"""What the control plane and an agent send each other, as values and as JSON.

The side that sends calls `as_json`, the side that receives calls `parse_...` with decoded JSON and
gets a value or ProtocolError. Unknown fields are ignored, because the image on a host may be of
another version than the control plane.
"""

from orchestrator.contract.wire.assignments import (
    PACKED_WITHIN_MAX_BYTES,
    Assignment,
    BundleRef,
    Identity,
    Kind,
    Limits,
    Message,
    Role,
    parse_assignment,
    parse_identity,
    parse_inbox,
    parse_limits,
    parse_message,
)
from orchestrator.contract.wire.fields import ProtocolError, decode
from orchestrator.contract.wire.reports import (
    FAILURE_MAX_CHARS,
    LOG_LINE_MAX_CHARS,
    LOG_LINES_MAX,
    LOGS_MAX_BYTES,
    MESSAGE_MAX_CHARS,
    REPORT_MAX_BYTES,
    SUMMARY_MAX_CHARS,
    TEMPORARY,
    Failure,
    FailureCode,
    Outcome,
    Phase,
    Report,
    parse_report,
)
from orchestrator.contract.wire.trials import parse_finding, parse_secret

__all__ = [
    "Identity",
    "parse_identity",
    "Assignment",
    "BundleRef",
    "Kind",
    "Limits",
    "Message",
    "Role",
    "parse_assignment",
    "parse_inbox",
    "parse_limits",
    "parse_message",
    "Report",
    "Failure",
    "FailureCode",
    "Outcome",
    "Phase",
    "TEMPORARY",
    "parse_report",
    "parse_finding",
    "parse_secret",
    "FAILURE_MAX_CHARS",
    "LOGS_MAX_BYTES",
    "LOG_LINES_MAX",
    "LOG_LINE_MAX_CHARS",
    "MESSAGE_MAX_CHARS",
    "PACKED_WITHIN_MAX_BYTES",
    "REPORT_MAX_BYTES",
    "SUMMARY_MAX_CHARS",
    "ProtocolError",
    "decode",
]
