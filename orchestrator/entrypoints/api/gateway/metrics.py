"""The metrics of gateway and agents, and the API keys that a provider refused.

The gateway writes them. Its process serves them to the public app, for /metrics and /ready.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from orchestrator.domain.llm.breakers import BreakerState
from orchestrator.domain.llm.pricing import MICRO
from orchestrator.domain.llm.usage import Call

_QUEUE_WAIT_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60)
_FIRST_BYTE_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


class GatewayMetrics:
    """Counts since this process started. The lasting accounts are in the store."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self._refused_keys: dict[str, str] = {}
        self._calls = Counter(
            "spawn_llm_calls", "Calls that ended", ["provider", "outcome"], registry=registry
        )
        self._tokens = Counter(
            "spawn_llm_tokens", "Tokens by kind", ["provider", "kind"], registry=registry
        )
        self._cost = Counter(
            "spawn_llm_cost_usd", "Cost, US dollars", ["provider"], registry=registry
        )
        self.budget_refusals = Counter(
            "spawn_llm_budget_refusals",
            "Calls refused because a budget was used up, or reserved by other calls",
            ["scope"],
            registry=registry,
        )
        self.slot_refusals = Counter(
            "spawn_llm_slot_refusals",
            "Calls refused because a session or user had too many, or had held slots for too long",
            ["limit"],
            registry=registry,
        )
        self.failed_attempts = Counter(
            "spawn_llm_retries", "Attempts that failed", ["provider"], registry=registry
        )
        self.queue_length = Gauge(
            "spawn_llm_queue_length", "Calls that wait for a slot", registry=registry
        )
        self.slots_in_use = Gauge("spawn_llm_calls_under_way", "Slots in use", registry=registry)
        self.queue_wait = Histogram(
            "spawn_llm_queue_wait_seconds",
            "Time that a call waited for a slot",
            buckets=_QUEUE_WAIT_BUCKETS_S,
            registry=registry,
        )
        self.first_byte = Histogram(
            "spawn_llm_first_byte_seconds",
            "From the call to a provider to its first byte",
            ["provider"],
            buckets=_FIRST_BYTE_BUCKETS_S,
            registry=registry,
        )
        self.shared_requests = Counter(
            "spawn_llm_shared",
            "Requests by whether they joined an equal one",
            ["hit"],
            registry=registry,
        )
        self.agent_connections = Gauge(
            "spawn_agent_connections", "Open connections of agents", registry=registry
        )
        self.agent_refusals = Counter(
            "spawn_agent_refusals",
            "Connections and requests of agents that were refused or cut",
            ["reason"],
            registry=registry,
        )
        self.waiting_walks = Gauge(
            "spawn_waiting_walks",
            "Apps that wait for their turn to be opened at their public address",
            registry=registry,
        )
        self._breakers = Gauge(
            "spawn_llm_breaker",
            "1 for the state that a breaker is in",
            ["provider", "state"],
            registry=registry,
        )

    @property
    def refused_keys(self) -> Mapping[str, str]:
        """Settings whose key the provider refused at its last use, with the provider's reason."""
        return dict(self._refused_keys)

    def record_refused_key(self, setting: str, reason: str) -> None:
        self._refused_keys[setting] = reason

    def record_accepted_key(self, setting: str) -> None:
        self._refused_keys.pop(setting, None)

    def set_breaker_state(self, provider: str, current: BreakerState) -> None:
        for state in BreakerState:
            self._breakers.labels(provider, state.value).set(float(state is current))

    def count_call(self, call: Call) -> None:
        """Count a call that was accounted for."""
        provider = call.provider or "none"
        self._calls.labels(provider, call.outcome.value).inc()
        self._cost.labels(provider).inc(call.micro_usd / MICRO)
        for kind, count in vars(call.counts).items():
            if count:
                self._tokens.labels(provider, kind).inc(count)
