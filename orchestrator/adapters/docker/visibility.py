"""Whether a Docker engine sees a folder of its machine. DockerEngine calls it.

An engine from a snap, in a container or virtual machine, or on another machine has other files
under the same path, or none. Then agents never find their socket.
"""

from __future__ import annotations

import contextlib
from typing import Any

from orchestrator.adapters.docker import flags
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.docker.sdk import docker
from orchestrator.domain import errors

_CANNOT_MOUNT = ("bind source path does not exist", "error mounting")  # Docker's words, runc's
_MEMORY_BYTES = 64 * 1024**2


def sees(api: docker.APIClient, limits: SandboxLimits, image: str, folder: str, name: str) -> bool:
    """Whether a container that mounts this folder finds the file `name` in it.

    Raises errors of Docker. The container is removed.
    """
    remove_probe(api, limits)
    container = f"spawn-probe-{limits.instance}"
    try:
        api.create_container_from_config(_create_body(limits, image, folder, name), container)
        api.start(container)
        return int(api.wait(container)["StatusCode"]) == 0
    except docker.errors.APIError as error:
        if any(words in str(error.explanation) for words in _CANNOT_MOUNT):
            return False  # there is no such folder
        raise
    finally:
        with contextlib.suppress(errors.SpawnError, docker.errors.DockerException, OSError):
            remove_probe(api, limits)


def remove_probe(api: docker.APIClient, limits: SandboxLimits) -> None:
    """Remove the container, also one that an earlier process left behind, whatever its name."""
    filters = {"label": f"{flags.INSTANCE_LABEL}={limits.instance}"}
    for item in api.containers(all=True, filters=filters):
        if flags.SANDBOX_LABEL not in item["Labels"]:
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_container(item["Id"], v=True, force=True)


def _create_body(limits: SandboxLimits, image: str, folder: str, name: str) -> dict[str, Any]:
    return {
        "Image": image,
        "User": "0:0",
        "Entrypoint": ["test", "-e", f"{flags.AGENT_FOLDER}/{name}"],
        "Cmd": [],
        "Labels": {flags.INSTANCE_LABEL: limits.instance},
        "NetworkDisabled": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": _MEMORY_BYTES,
            "PidsLimit": 16,
            "Mounts": [flags.agent_mount(folder)],
            "LogConfig": {"Type": "none", "Config": {}},
        },
    }
