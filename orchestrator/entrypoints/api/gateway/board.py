"""What one gateway tells of itself: metrics, and keys that a provider refused. Shared with the
public app, which serves /metrics and /ready.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from orchestrator.domain.llm.breakers import BreakerState
from orchestrator.domain.llm.pricing import MICRO
from orchestrator.domain.llm.usage import Call

_WAITS_S = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60)
_FIRST_BYTES_S = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


class Board:
    """Counted since the process began; the accounts are in the store."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self._faults: dict[str, str] = {}
        self._calls = Counter(
            "spawn_llm_calls", "Calls that are over", ["provider", "outcome"], registry=registry
        )
        self._tokens = Counter(
            "spawn_llm_tokens", "Tokens by kind", ["provider", "kind"], registry=registry
        )
        self._cost = Counter(
            "spawn_llm_cost_usd", "Cost, US dollars", ["provider"], registry=registry
        )
        self.refused = Counter(
            "spawn_llm_budget_refusals", "Calls refused for a budget", ["scope"], registry=registry
        )
        self.retries = Counter(
            "spawn_llm_retries", "Attempts that did not serve", ["provider"], registry=registry
        )
        self.waiting = Gauge(
            "spawn_llm_queue_length", "Calls that wait for a slot", registry=registry
        )
        self.under_way = Gauge("spawn_llm_calls_under_way", "Slots in use", registry=registry)
        self.waited = Histogram(
            "spawn_llm_queue_wait_seconds", "Waits for a slot", buckets=_WAITS_S, registry=registry
        )
        self.first_byte = Histogram(
            "spawn_llm_first_byte_seconds",
            "From the call to a provider to its first byte",
            ["provider"],
            buckets=_FIRST_BYTES_S,
            registry=registry,
        )
        self.shared = Counter(
            "spawn_llm_shared",
            "Requests by whether one like them was under way",
            ["hit"],
            registry=registry,
        )
        self.generations = Counter(
            "spawn_generation_cache",
            "Prompts by whether an earlier app fitted",
            ["hit"],
            registry=registry,
        )
        self._breakers = Gauge(
            "spawn_llm_breaker",
            "1 for the state that a breaker is in",
            ["provider", "state"],
            registry=registry,
        )

    @property
    def faults(self) -> Mapping[str, str]:
        """Settings whose key a provider refused when it was last used, and what it said."""
        return dict(self._faults)

    def key_refused(self, setting: str, said: str) -> None:
        self._faults[setting] = said

    def key_accepted(self, setting: str) -> None:
        self._faults.pop(setting, None)

    def breaker(self, provider: str, state: BreakerState) -> None:
        for one in BreakerState:
            self._breakers.labels(provider, one.value).set(float(one is state))

    def accounted(self, call: Call) -> None:
        provider = call.provider or "none"
        self._calls.labels(provider, call.outcome.value).inc()
        self._cost.labels(provider).inc(call.micro_usd / MICRO)
        for kind, count in vars(call.counts).items():
            if count:
                self._tokens.labels(provider, kind).inc(count)
