"""The limits of a sandbox, and the body of Docker's create call that enforces them.

Pure. DockerEngine sends this body; bootstrap fills SandboxLimits from the settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.ids import SandboxId
from orchestrator.ports import SandboxSpec

INSTANCE_LABEL = "ai.spawn.instance"
SANDBOX_LABEL = "ai.spawn.sandbox"

RUNTIME_LABEL = "ai.spawn.runtime"  # on runtime images: the hash of their sources
RUNTIME_REPOSITORY = "spawnai/runtime"

APP_PORT = "3000/tcp"
AGENT_FOLDER = "/run/spawn"

_MIB = 1024**2
# Above what useradd, systemd, subordinate ids and directory services hand out, below 2**31.
_FIRST_USER = 2_100_000_000
# The kernel stops a container that has used up its share of a period until the next one begins.
# An agent or a small app starts within the share of 200 ms. In Docker's usual 100 ms it doesn't.
_CPU_PERIOD_US = 200_000
# Half of what any other group of processes weighs, with cgroup version 2 a fifth: whatever
# sandboxes start or generate, the control plane and Docker get their turn before them.
_CPU_SHARES = 512


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """What one sandbox may use, and which installation owns it. The defaults are safe."""

    instance: str  # the owner; two installations on one Docker engine ignore each other's sandboxes
    memory_bytes: int = 1024 * _MIB  # including swap, so there is none
    pids: int = 256  # processes and threads
    tmp_bytes: int = 64 * _MIB  # size of the tmpfs at /tmp; counts towards memory_bytes
    app_bytes: int = 256 * _MIB  # size of the tmpfs at /app; counts towards memory_bytes
    shm_bytes: int = 16 * _MIB  # size of /dev/shm; counts towards memory_bytes
    open_files: int = 4096
    oom_score: int = 500  # if the host runs out of memory, sandboxes die before our services
    log_driver: str = "json-file"  # or "local"
    log_size: str = "5m"
    log_files: int = 2
    runtime: str | None = None  # "runsc" for gVisor; None is the engine's default

    @property
    def network(self) -> str:
        return f"spawnai-{self.instance}"

    @property
    def repository(self) -> str:
        """The repository under which this installation tags the images that it pushes to hosts."""
        return f"{RUNTIME_REPOSITORY}-{self.instance}"

    @property
    def bridge(self) -> str:
        """The network's interface, which firewall rules name. Linux allows 15 characters."""
        return "spn" + hashlib.sha256(self.instance.encode()).hexdigest()[:10]


def container_name(sandbox_id: SandboxId) -> str:
    """Derive the name from the sandbox's id, so that Docker itself refuses a second container."""
    return f"spawn-{sandbox_id}"


def user_of(port: int, *, is_mapped: bool) -> int:
    """The user of the sandbox at this port of its host, and its group.

    Much that the kernel has is counted per user: inotify instances, epoll watches, pages of pipes,
    signals. Live sandboxes of a host have different ports, so none takes its neighbours' share.
    `is_mapped`: the engine maps users, and has only those below 65,536 in its containers.
    """
    return port if is_mapped else _FIRST_USER + port


def create_body(limits: SandboxLimits, spec: SandboxSpec, *, user: int) -> dict[str, Any]:
    """Return the body of POST /containers/create (Engine API 1.41).

    It contains no secret: the identity goes in over standard input.
    """
    return {
        "Image": spec.image,
        "Hostname": "sandbox",
        "User": f"{user}:{user}",
        "Labels": {INSTANCE_LABEL: limits.instance, SANDBOX_LABEL: spec.sandbox_id},
        "Tty": False,
        "AttachStdin": True,
        "OpenStdin": True,
        "StdinOnce": True,  # closed for good once the identity is written
        "ExposedPorts": {APP_PORT: {}},
        "Healthcheck": {"Test": ["NONE"]},  # the agent's inbox polls tell more and need no exec
        "HostConfig": {
            **_isolation(limits, user),
            **_resources(limits),
            **cpu_quota(spec.cpus),
            "NetworkMode": limits.network,
            "PortBindings": {
                APP_PORT: [{"HostIp": spec.publish_address, "HostPort": str(spec.port)}]
            },
            "Dns": ["127.0.0.1"],
            "DnsSearch": ["."],  # otherwise resolv.conf shows the host's domain
            "Mounts": [agent_mount(spec.agent_folder)],
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {
                "Type": limits.log_driver,
                "Config": {"max-size": limits.log_size, "max-file": str(limits.log_files)},
            },
            **({} if limits.runtime is None else {"Runtime": limits.runtime}),
        },
    }


def cpu_quota(cpus: float) -> Mapping[str, int]:
    """The fields of a create call, or of an update, that let a container use so many CPUs."""
    return {"CpuPeriod": _CPU_PERIOD_US, "CpuQuota": round(cpus * _CPU_PERIOD_US)}


def network_options(limits: SandboxLimits) -> dict[str, str]:
    """Return the options of the bridge network: no traffic between sandboxes, no masquerading."""
    return {
        "com.docker.network.bridge.name": limits.bridge,
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
    }


def _isolation(limits: SandboxLimits, user: int) -> Mapping[str, Any]:
    # Without a seccomp entry in SecurityOpt Docker applies its default profile.
    return {
        "Init": True,
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "IpcMode": "private",
        "ShmSize": limits.shm_bytes,
        "Tmpfs": {
            "/tmp": _tmpfs(limits.tmp_bytes, user, "1777"),  # noqa: S108 - inside the sandbox
            "/app": _tmpfs(limits.app_bytes, user, "0700"),
        },
    }


def _resources(limits: SandboxLimits) -> Mapping[str, Any]:
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # memory and swap together
        "CpuShares": _CPU_SHARES,
        "PidsLimit": limits.pids,
        "OomScoreAdj": limits.oom_score,
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (("nofile", limits.open_files), ("core", 0))
        ],
    }


def _tmpfs(size_bytes: int, user: int, mode: str) -> str:
    return f"rw,nosuid,nodev,noexec,size={size_bytes},uid={user},gid={user},mode={mode}"


def agent_mount(folder: str) -> Mapping[str, Any]:
    """Mount the folder, not the socket in it: after our restart the socket is a new file.

    This is a mount and not a `Binds` entry, because Docker creates a missing folder for those,
    empty and owned by root.
    """
    return {
        "Type": "bind",
        "Source": folder,
        "Target": AGENT_FOLDER,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate"},
    }
