"""The body of Docker's create call, as a pure function of limits and spec."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.adapters.docker import flags
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.domain.ids import SandboxId
from orchestrator.ports import SandboxSpec

SPEC = SandboxSpec(
    sandbox_id=SandboxId("sbx_abc"),
    image="spawnai/runtime:1",
    publish_address="10.0.0.5",
    port=20001,
    agent_folder="/run/spawnai/agent",
    identity='{"token":"very-secret"}',
)


def rendered(**limits: Any) -> dict[str, Any]:
    return flags.create_body(SandboxLimits(instance="one", **limits), SPEC)


def test_nothing_of_the_identity_is_in_what_docker_keeps() -> None:
    assert "very-secret" not in json.dumps(rendered())
    assert "Env" not in rendered()
    assert "Cmd" not in rendered()


def test_the_root_is_read_only_and_the_user_without_any_right() -> None:
    fences = rendered()["HostConfig"]
    assert rendered()["User"] == "10001:10001"
    assert fences["ReadonlyRootfs"] is True
    assert fences["Privileged"] is False
    assert fences["CapDrop"] == ["ALL"]
    assert "CapAdd" not in fences


def test_dockers_default_seccomp_profile_is_never_switched_off() -> None:
    assert rendered()["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("memory_bytes", [64 * 1024**2, 2 * 1024**3])
def test_memory_leaves_no_room_for_swap(memory_bytes: int) -> None:
    fences = rendered(memory_bytes=memory_bytes)["HostConfig"]
    assert fences["Memory"] == fences["MemorySwap"] == memory_bytes


@pytest.mark.parametrize(("cpus", "nano"), [(0.5, 500_000_000), (0.1, 100_000_000)])
def test_cpus_are_given_to_docker_in_billionths(cpus: float, nano: int) -> None:
    assert rendered(cpus=cpus)["HostConfig"]["NanoCpus"] == nano


def test_writable_folders_are_sized_and_run_no_programs() -> None:
    folders = rendered(tmp_bytes=1000, app_bytes=2000)["HostConfig"]["Tmpfs"]
    common = {"rw", "nosuid", "nodev", "noexec", "uid=10001", "gid=10001"}
    assert set(folders["/tmp"].split(",")) == common | {"size=1000", "mode=1777"}
    assert set(folders["/app"].split(",")) == common | {"size=2000", "mode=0700"}
    assert folders.keys() == {"/tmp", "/app"}


def test_the_agent_folder_is_the_only_mount_and_read_only() -> None:
    (mount,) = rendered()["HostConfig"]["Mounts"]
    assert mount["Type"] == "bind"
    assert (mount["Source"], mount["Target"]) == ("/run/spawnai/agent", "/run/spawn")
    assert mount["ReadOnly"] is True


def test_only_port_3000_is_published_and_only_on_the_given_address() -> None:
    assert rendered()["HostConfig"]["PortBindings"] == {
        "3000/tcp": [{"HostIp": "10.0.0.5", "HostPort": "20001"}]
    }


def test_a_name_service_of_the_host_is_never_handed_in() -> None:
    fences = rendered()["HostConfig"]
    assert fences["Dns"] == ["127.0.0.1"]
    assert fences["DnsSearch"] == ["."]


def test_labels_tell_instance_and_sandbox() -> None:
    assert rendered()["Labels"] == {"ai.spawn.instance": "one", "ai.spawn.sandbox": "sbx_abc"}
    assert flags.container_name(SPEC.sandbox_id) == "spawn-sbx_abc"


def test_standard_input_is_open_once() -> None:
    body = rendered()
    assert (body["OpenStdin"], body["StdinOnce"], body["Tty"]) == (True, True, False)


def test_another_runtime_is_named_only_when_chosen() -> None:
    assert "Runtime" not in rendered()["HostConfig"]
    assert rendered(runtime="runsc")["HostConfig"]["Runtime"] == "runsc"


def test_logs_are_capped_whatever_the_driver() -> None:
    assert rendered(log_driver="local", log_size="1m", log_files=3)["HostConfig"]["LogConfig"] == {
        "Type": "local",
        "Config": {"max-size": "1m", "max-file": "3"},
    }


def test_bridge_names_fit_linux_and_tell_instances_apart() -> None:
    long = SandboxLimits(instance="a-very-long-name-of-an-installation")
    assert len(long.bridge) <= 15
    assert long.bridge == SandboxLimits(instance=long.instance).bridge
    assert long.bridge != SandboxLimits(instance="other").bridge
    assert flags.network_options(long)["com.docker.network.bridge.name"] == long.bridge
