"""The agent socket of each sandbox: where it is, and what a sandbox may hold of it.

Each sandbox has a socket of its own, in a folder of its own that is the only one mounted into it.
So who connects there is that sandbox, on every host, before its first byte. The links, the agents'
process and the engines use this module.
"""

from __future__ import annotations

from orchestrator.domain.ids import SandboxId

SOCKET = "agent.sock"
CONNECTIONS_MAX = 32  # of one sandbox; its agent and its generator need three
# Below a host's agent folder. Sandboxes that were made before each had its own socket have the
# agent folder itself, and share the socket in it.
SANDBOXES = "sandboxes"


def folder_of(agent_folder: str, sandbox_id: SandboxId) -> str:
    """The folder that is mounted into this sandbox, on a host with this agent folder."""
    return f"{agent_folder}/{SANDBOXES}/{sandbox_id}"
