"""The Docker SDK without its SSH transport. All modules import the SDK from here."""

from __future__ import annotations

from orchestrator import slim

# paramiko takes 16 MB of memory, and only hosts/break_glass.py needs the SSH transport.
with slim.hide_module("paramiko"):
    import docker
    import docker.errors
    import docker.transport.unixconn

__all__ = ["docker"]
