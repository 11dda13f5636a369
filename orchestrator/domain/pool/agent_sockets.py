"""The agent socket of each sandbox: where it is, and what a sandbox may hold of it.

Each sandbox has a socket of its own, in a folder of its own that is the only one mounted into it.
So who connects there is that sandbox, on every host, before its first byte. The links, the agents'
process and the engines use this module.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain.ids import SandboxId

SOCKET = "agent.sock"
CONNECTIONS_MAX = 32  # of one sandbox; its agent and its generator need three
CONNECTIONS_PER_S = 64  # of one sandbox; its agent makes one for each request, some ten a second
# Of the process of a host's sshd that serves our link: one per stream and per socket.
LINK_DESCRIPTORS_MAX = 1000
_DESCRIPTORS_OF_SSHD = 24  # its own
_DESCRIPTORS_OF_HOST = 100  # our calls to Docker, our commands, and generators of apps
_DESCRIPTORS_PER_SANDBOX = 2  # its socket, and the poll of its agent
# Below a host's agent folder. Sandboxes that were made before each had its own socket have the
# agent folder itself, and share the socket in it.
SANDBOXES = "sandboxes"


def folder_of(agent_folder: str, sandbox_id: SandboxId) -> str:
    """The folder that is mounted into this sandbox, on a host with this agent folder."""
    return f"{agent_folder}/{SANDBOXES}/{sandbox_id}"


def sandboxes_on_link(sshd_descriptors: int) -> int:
    """For how many sandboxes a link is good whose sshd may have so many descriptors."""
    descriptors = min(sshd_descriptors - _DESCRIPTORS_OF_SSHD, LINK_DESCRIPTORS_MAX)
    return max(0, (descriptors - _DESCRIPTORS_OF_HOST) // _DESCRIPTORS_PER_SANDBOX)


@dataclass
class ConnectionRate:
    """How many connections of one sandbox began in this second."""

    _count: int = 0
    _second_ends: float = 0.0

    def take(self, now_s: float) -> float:
        """Count a connection that may begin now, and return 0. If there are too many already,
        return for how many seconds none may begin."""
        if now_s >= self._second_ends:
            self._count, self._second_ends = 0, now_s + 1
        if self._count >= CONNECTIONS_PER_S:
            return self._second_ends - now_s
        self._count += 1
        return 0.0
