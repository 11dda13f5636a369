"""The Docker SDK without its SSH transport. Who uses the SDK gets it from here."""

from __future__ import annotations

from orchestrator import slim

with slim.absent(
    "paramiko"
):  # 16 MB, for a transport that hosts/break_glass.py alone speaks through
    import docker
    import docker.errors
    import docker.transport.unixconn

__all__ = ["docker"]
