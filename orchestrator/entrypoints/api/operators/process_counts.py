"""What the processes of the API count, each for itself, in one answer of /metrics.

Whichever process is asked, it asks the others, so that the answer doesn't depend on it. The label
`process` keeps their counts apart: each begins at zero when its process does.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from orchestrator.adapters import api_socket
from orchestrator.entrypoints.api.context import Context

_LABEL = "process"


class OfAllProcesses(Collector):
    """The counts of all processes, and whether each one answers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "spawn_api_process_up", "Whether a process of the API answers", labels=[_LABEL]
        )
        families: dict[str, Metric] = {}
        for number in range(1, self._context.settings.processes.api_processes + 1):
            text = self._counts_of(number)
            up.add_metric([str(number)], float(bool(text)))
            for family in text_string_to_metric_families(text):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, _LABEL: str(number)}
                    merged.samples.append(sample._replace(labels=labels))
        yield up
        yield from families.values()

    def _counts_of(self, number: int) -> str:
        if number == self._context.number:
            return generate_latest(self._context.api_metrics.registry).decode()
        return api_socket.counts(self._context.settings.places.api_socket(number))
