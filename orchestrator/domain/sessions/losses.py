"""The loss of a session's sandbox: whether its app is to blame, and what people read of it.

The planner decides with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from orchestrator.contract import crashes
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.sandbox import ROUTED_STATES, Sandbox
from orchestrator.domain.sessions.session import Session

AVOIDED_FOR = timedelta(hours=1)
HOSTS_MAX = 8  # in a session's row
"""Of the codes of failures: the host of the attempt gave it no sandbox that lasts."""
BLAMING = frozenset({"sandbox_not_ready", "sandbox_lost"})


def is_lost(sandbox: Sandbox | None) -> bool:
    return sandbox is None or sandbox.state not in ROUTED_STATES


def message_of(sandbox: Sandbox | None) -> str:
    reason = sandbox.reason if sandbox is not None and sandbox.reason else "it is gone"
    return f"The sandbox was lost: {reason}"


def crashes_after(
    session: Session, sandbox: Sandbox | None, host: Host | None, now: datetime
) -> tuple[datetime, ...]:
    """The crashes of its app within the last hour, with this loss if it counts as one."""
    recent = tuple(
        at for at in session.crashes if (now - at).total_seconds() < crashes.RECOVERY_WINDOW_S
    )
    return (*recent, now) if _is_crash(sandbox, host) else recent


def hosts_after(
    session: Session, sandbox: Sandbox | None, now: datetime
) -> Mapping[HostId, datetime]:
    """The hosts that the session goes to last, with the one that this sandbox was on."""
    if sandbox is None:
        return session.lost_on
    lost_on = {
        host_id: at
        for host_id, at in session.lost_on.items()
        if now - at < AVOIDED_FOR and host_id != sandbox.host_id
    }
    return dict([*lost_on.items(), (sandbox.host_id, now)][-HOSTS_MAX:])


def _is_crash(sandbox: Sandbox | None, host: Host | None) -> bool:
    """Whether the app may have taken its sandbox down. What we, its host or a person ended, it
    has not."""
    if host is None or sandbox is None or sandbox.ended_by_host:
        return False
    return host.state is not HostState.LOST and sandbox.generation >= host.generation
