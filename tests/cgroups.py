"""How many CPUs a container may use, as the kernel says inside of it: cgroup version 2, or 1."""

from __future__ import annotations

# Prints the quota and the period in microseconds.
READ_CPU_LIMIT = (
    "sh",
    "-c",
    "cat /sys/fs/cgroup/cpu.max 2>/dev/null"
    " || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us",
)


def cpus_of(printed: str) -> float:
    """The number of CPUs in what the command printed."""
    quota_us, period_us = printed.split()
    return int(quota_us) / int(period_us)
