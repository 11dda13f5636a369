"""The groups of `make bench`: each measures one thing beside its bare counterpart, in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.groups import (
    agents,
    bursts,
    changes,
    cold,
    gateway,
    generation,
    hosts,
    peers,
    rest,
    sustained,
    warm,
)
from bench.measure import Section


@dataclass(frozen=True, kw_only=True)
class Group:
    """One part of a run."""

    title: str
    measure: Callable[[], Section]


GROUPS: Mapping[str, Group] = {
    "cold": Group(title="Cold starts", measure=cold.measure),
    "warm": Group(title="Warm starts", measure=warm.measure),
    "sustained": Group(title="Starts without a pause", measure=sustained.measure),
    "bursts": Group(title="Bursts", measure=bursts.measure),
    "generation": Group(title="Apps that the model writes", measure=generation.measure),
    "changes": Group(title="Changes", measure=changes.measure),
    "rest": Group(title="At rest, and polled", measure=rest.measure),
    "gateway": Group(title="The gateway", measure=gateway.measure),
    "hosts": Group(title="Hosts over SSH", measure=hosts.measure),
    "agents": Group(title="Agents", measure=agents.measure),
    "peers": Group(title="Peers", measure=peers.measure),
}
