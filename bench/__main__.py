"""`make bench`: run all groups, print their tables, and write bench/results.md.

`python -m bench --only sustained,bursts` runs these groups and prints them; it writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.groups import GROUPS
from bench.measure import Section

RESULTS = Path(__file__).parent / "results.md"


def main() -> None:
    """Measure, print, write. Exits with 1 if a target is missed."""
    names = _chosen(sys.argv[1:])
    sections: dict[str, Section] = {}
    durations_s: dict[str, float] = {}
    for name in names:
        group = GROUPS[name]
        started_at = time.perf_counter()
        section = group.measure()
        sections[group.title], durations_s[group.title] = section, time.perf_counter() - started_at
        print(f"## {group.title} ({durations_s[group.title]:.0f} s)\n", flush=True)
        print(report.table(section.rows), *section.notes, sep="\n\n", end="\n\n", flush=True)
    if names == list(GROUPS):
        RESULTS.write_text(report.whole(sections, durations_s))
    missed = report.missed(sections)
    print(*(f"missed: {row}" for row in missed), sep="\n")
    sys.exit(1 if missed else 0)


def _chosen(arguments: Sequence[str]) -> list[str]:
    """The names of the groups to run, in their order."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, comma-separated")
    only = parser.parse_args(arguments).only.split(",")
    unknown = sorted(set(only) - GROUPS.keys())
    if unknown:
        parser.error(f"there is no group {', '.join(unknown)}; there are: {', '.join(GROUPS)}")
    return [name for name in GROUPS if name in only]


if __name__ == "__main__":
    main()
