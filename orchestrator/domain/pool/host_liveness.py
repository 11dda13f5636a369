"""Whether a host answers, is suspect or is lost: decided by what its link reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.sandbox import Sandbox

LOST_AFTER = timedelta(seconds=15)
# After a return: by then its containers were compared with the store, also if it took its turn.
_RETURN_GRACE = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class LinkState:
    """Whether a host answers through its link right now."""

    up: bool  # the link is connected and Docker answers through it
    since: datetime  # since when `up` is as it is
    reason: str = ""  # why it isn't up, for people
    code: str = ""  # e.g. "host_key_changed"; "" if operators need no alert


def assess(host: Host, link: LinkState, now: datetime) -> Host:
    """The host in the state that its link implies. services.pool.host_life records it.

    A host that doesn't answer is SUSPECT at once, and LOST after LOST_AFTER. When it answers again,
    a LOST one is JOINING, to be swept, and a SUSPECT one waits to be admitted. Only admission
    makes it UP.
    """
    if host.drain is Drain.LEAVE:
        return host
    if link.up:
        if host.state is HostState.LOST:
            return host.transition(HostState.JOINING, now, "it is back, and being swept")
        return host
    if host.state is HostState.SUSPECT and now - max(link.since, host.state_since) >= LOST_AFTER:
        return host.transition(HostState.LOST, now, link.reason)
    if host.state is HostState.LOST:
        return replace(host, reason=link.reason)
    return host.transition(HostState.SUSPECT, now, link.reason)


def is_explained_by_outage(host: Host, sandbox: Sandbox, now: datetime) -> bool:
    """Whether a sandbox that turns out dead now may have ended with its engine.

    An engine that restarts stops its containers while nobody can ask it: they turn up when it
    answers again. A sandbox that was placed since then hasn't lived through that.
    """
    if host.state is not HostState.UP:
        return True
    return sandbox.created_at < host.state_since and now - host.state_since <= _RETURN_GRACE
