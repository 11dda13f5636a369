"""What a run prints, and what `make bench` writes to bench/results.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import docker

from bench.measure import Row, Section


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, without the columns that no row has."""
    columns = {
        "what": [row.name for row in rows],
        "p50": [row.p50 for row in rows],
        "p95": [row.p95 for row in rows],
        "rate": [row.rate for row in rows],
        "CPU each": [row.cpu for row in rows],
        "to bare": [row.ratio for row in rows],
        "target": [row.target for row in rows],
        "met": [{True: "yes", False: "**NO**", None: ""}[row.met] for row in rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    lines = [list(kept), ["---" if name in {"what", "target", "met"} else "---:" for name in kept]]
    lines += [list(cells) for cells in zip(*kept.values(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def whole(sections: Mapping[str, Section], durations_s: Mapping[str, float]) -> str:
    """The report of a run. `sections` and `durations_s` are by the group's title."""
    parts = [
        f"# Measurements\n\nOne run of `make bench`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC,"
        f" {sum(durations_s.values()) / 60:.0f} minutes; {machine()}. Each group has its bare"
        " counterpart beside it, in turn, so that the load of the machine affects both alike."
        " `CPU each` is the time of all processes of the control plane, Docker's and the apps' own"
        " left out."
    ]
    for title, section in sections.items():
        parts.append(f"## {title}\n\n{table(section.rows)}")
        parts += section.notes
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    """This machine and its programs, in one line."""
    engine = docker.from_env()
    try:
        version = engine.version()["Version"]
    finally:
        engine.close()
    return (
        f"{os.cpu_count()} CPUs, Linux {platform.release().split('-')[0]}, Docker {version},"
        f" Python {platform.python_version()}, SQLite"
    )


def missed(sections: Mapping[str, Section]) -> Sequence[str]:
    """The names of the rows whose target is missed."""
    return [row.name for section in sections.values() for row in section.rows if row.met is False]
