"""How a sandbox is fenced in: its limits, and the body of Docker's create call made from them.

Pure. DockerEngine sends what this renders; bootstrap fills SandboxLimits from the settings.
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

RUNTIME_LABEL = "ai.spawn.runtime"  # on runtime images: the hash of what they were built from
RUNTIME_REPOSITORY = "spawnai/runtime"

USER_ID = 10001
APP_PORT = "3000/tcp"
AGENT_FOLDER = "/run/spawn"

_MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """What one sandbox may use, and whose it is. The defaults are the safe values."""

    instance: str  # this installation; two on one Docker engine don't see each other's sandboxes
    memory_bytes: int = 1024 * _MIB  # swap comes to nothing on top
    cpus: float = 0.5
    pids: int = 256  # processes and threads
    tmp_bytes: int = 64 * _MIB  # tmpfs, counts as memory of the sandbox
    app_bytes: int = 256 * _MIB  # the same
    shm_bytes: int = 16 * _MIB  # the same
    open_files: int = 4096
    # The kernel counts RLIMIT_NPROC per user over all sandboxes of a host, so this must not be
    # what bounds one of them (pids does): otherwise a neighbour could use it up.
    processes_of_user: int = 65536
    oom_score: int = 500  # when the host runs out of memory, sandboxes go before our own services
    log_driver: str = "json-file"  # or "local"
    log_size: str = "5m"
    log_files: int = 2
    runtime: str | None = None  # "runsc" for gVisor; None is the engine's default

    @property
    def network(self) -> str:
        return f"spawnai-{self.instance}"

    @property
    def repository(self) -> str:
        """Under which runtime images are also tagged that this installation has put somewhere."""
        return f"{RUNTIME_REPOSITORY}-{self.instance}"

    @property
    def bridge(self) -> str:
        """The interface behind the network. Linux allows 15 characters; firewall rules name it."""
        return "spn" + hashlib.sha256(self.instance.encode()).hexdigest()[:10]


def container_name(sandbox_id: SandboxId) -> str:
    """Fixed by the sandbox, so that Docker itself refuses to make a second one."""
    return f"spawn-{sandbox_id}"


def create_body(limits: SandboxLimits, spec: SandboxSpec) -> dict[str, Any]:
    """Body of POST /containers/create (Engine API 1.41). Holds nothing secret: the identity goes
    in over standard input."""
    return {
        "Image": spec.image,
        "Hostname": "sandbox",
        "User": f"{USER_ID}:{USER_ID}",
        "Labels": {INSTANCE_LABEL: limits.instance, SANDBOX_LABEL: spec.sandbox_id},
        "Tty": False,
        "AttachStdin": True,
        "OpenStdin": True,
        "StdinOnce": True,  # closed for good once the identity is in
        "ExposedPorts": {APP_PORT: {}},
        "Healthcheck": {"Test": ["NONE"]},  # the agent's inbox tells us more and costs no exec
        "HostConfig": {
            **_fences(limits),
            **_resources(limits),
            "NetworkMode": limits.network,
            "PortBindings": {
                APP_PORT: [{"HostIp": spec.publish_address, "HostPort": str(spec.port)}]
            },
            "Dns": ["127.0.0.1"],
            "DnsSearch": ["."],  # else the host's own domain shows in resolv.conf
            "Mounts": [_agent_mount(spec.agent_folder)],
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {
                "Type": limits.log_driver,
                "Config": {"max-size": limits.log_size, "max-file": str(limits.log_files)},
            },
            **({} if limits.runtime is None else {"Runtime": limits.runtime}),
        },
    }


def network_options(limits: SandboxLimits) -> dict[str, str]:
    """Options of the bridge network: no neighbours, no way out by masquerading."""
    return {
        "com.docker.network.bridge.name": limits.bridge,
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
    }


def _fences(limits: SandboxLimits) -> Mapping[str, Any]:
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
            "/tmp": _tmpfs(limits.tmp_bytes, "1777"),  # noqa: S108 - inside the sandbox
            "/app": _tmpfs(limits.app_bytes, "0700"),
        },
    }


def _resources(limits: SandboxLimits) -> Mapping[str, Any]:
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # memory and swap together
        "NanoCpus": round(limits.cpus * 1e9),
        "PidsLimit": limits.pids,
        "OomScoreAdj": limits.oom_score,
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (
                ("nofile", limits.open_files),
                ("nproc", limits.processes_of_user),
                ("core", 0),
            )
        ],
    }


def _tmpfs(size_bytes: int, mode: str) -> str:
    return f"rw,nosuid,nodev,noexec,size={size_bytes},uid={USER_ID},gid={USER_ID},mode={mode}"


def _agent_mount(folder: str) -> Mapping[str, Any]:
    """The folder and not the socket in it: after a restart of ours the socket is a new file.

    As a mount, not a `Binds` entry: those make a missing folder, owned by root and empty.
    """
    return {
        "Type": "bind",
        "Source": folder,
        "Target": AGENT_FOLDER,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate"},
    }
