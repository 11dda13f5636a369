"""The public app's own metrics: counts since its process started. Its endpoints write them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class ApiMetrics:
    """What a process of the API counts itself. Everything else at /metrics is in the store."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self.generations = Counter(
            "spawn_generation_cache",
            "Prompts by whether an earlier app was reused",
            ["hit"],
            registry=registry,
        )
        self.waiting_polls = Gauge(
            "spawn_waiting_polls", "Requests that wait for a change", registry=registry
        )
        self.refused_polls = Counter(
            "spawn_refused_polls",
            "Requests that weren't allowed to wait: their user had too many that did",
            registry=registry,
        )
        self.refused_downloads = Counter(
            "spawn_refused_downloads",
            "Downloads of an app's source that were refused: their user had too many",
            registry=registry,
        )
        self.refused_reads = Counter(
            "spawn_refused_reads",
            "Long lists that were refused: their user or address had asked for too many",
            registry=registry,
        )
