"""The body of Docker's create call, a pure function of limits and spec."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.adapters.docker import answers, flags
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
    cpus=0.5,
)


def render(**limits: Any) -> dict[str, Any]:
    return flags.create_body(SandboxLimits(instance="one", **limits), SPEC, user=2_100_020_001)


def test_docker_stores_nothing_of_the_identity() -> None:
    assert "very-secret" not in json.dumps(render())
    assert "Env" not in render()
    assert "Cmd" not in render()


def test_the_root_is_read_only_and_the_user_has_no_privileges() -> None:
    host_config = render()["HostConfig"]
    assert render()["User"] == "2100020001:2100020001"
    assert host_config["ReadonlyRootfs"] is True
    assert host_config["Privileged"] is False
    assert host_config["CapDrop"] == ["ALL"]
    assert "CapAdd" not in host_config


def test_each_port_of_a_host_has_a_user_that_nobody_else_has() -> None:
    users = {flags.user_of(port, is_mapped=False) for port in (1024, 20001, 65535)}
    assert len(users) == 3
    assert all(2_000_200_000 < user < 2_147_352_576 for user in users)


@pytest.mark.parametrize("option", ["name=userns", "name=rootless"])
def test_in_an_engine_that_maps_users_all_are_below_its_65536(option: str) -> None:
    info = {
        "ServerVersion": "20.10",
        "Driver": "overlay2",
        "DockerRootDir": "/var/lib/docker",
        "MemTotal": 1,
        "NCPU": 1,
        "SecurityOptions": ["name=seccomp,profile=default"],
    }
    assert not answers.parse_info(info).maps_users
    mapped = {**info, "SecurityOptions": ["name=seccomp,profile=default", option]}
    assert answers.parse_info(mapped).maps_users
    assert flags.user_of(65535, is_mapped=True) == 65535


def test_dockers_default_seccomp_profile_is_never_switched_off() -> None:
    assert render()["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("memory_bytes", [64 * 1024**2, 2 * 1024**3])
def test_memory_leaves_no_room_for_swap(memory_bytes: int) -> None:
    host_config = render(memory_bytes=memory_bytes)["HostConfig"]
    assert host_config["Memory"] == host_config["MemorySwap"] == memory_bytes


@pytest.mark.parametrize(("cpus", "quota_us"), [(0.5, 100_000), (0.1, 20_000), (2, 400_000)])
def test_cpus_are_a_share_of_periods_in_which_an_agent_can_start(
    cpus: float, quota_us: int
) -> None:
    body = flags.create_body(SandboxLimits(instance="one"), replace(SPEC, cpus=cpus), user=1)
    host_config = body["HostConfig"]
    assert (host_config["CpuQuota"], host_config["CpuPeriod"]) == (quota_us, 200_000)


def test_a_sandbox_weighs_less_than_what_docker_gives_by_itself() -> None:
    assert 0 < render()["HostConfig"]["CpuShares"] < 1024


def test_writable_folders_are_sized_and_run_no_programs() -> None:
    folders = render(tmp_bytes=1000, app_bytes=2000)["HostConfig"]["Tmpfs"]
    common = {"rw", "nosuid", "nodev", "noexec", "uid=2100020001", "gid=2100020001"}
    assert set(folders["/tmp"].split(",")) == common | {"size=1000", "mode=1777"}
    assert set(folders["/app"].split(",")) == common | {"size=2000", "mode=0700"}
    assert folders.keys() == {"/tmp", "/app"}


def test_the_agent_folder_is_the_only_mount_and_read_only() -> None:
    (mount,) = render()["HostConfig"]["Mounts"]
    assert mount["Type"] == "bind"
    assert (mount["Source"], mount["Target"]) == ("/run/spawnai/agent", "/run/spawn")
    assert mount["ReadOnly"] is True


def test_only_port_3000_is_published_and_only_on_the_given_address() -> None:
    assert render()["HostConfig"]["PortBindings"] == {
        "3000/tcp": [{"HostIp": "10.0.0.5", "HostPort": "20001"}]
    }


def test_a_sandbox_never_gets_the_hosts_name_server() -> None:
    host_config = render()["HostConfig"]
    assert host_config["Dns"] == ["127.0.0.1"]
    assert host_config["DnsSearch"] == ["."]


def test_labels_name_the_instance_and_the_sandbox() -> None:
    assert render()["Labels"] == {"ai.spawn.instance": "one", "ai.spawn.sandbox": "sbx_abc"}
    assert flags.container_name(SPEC.sandbox_id) == "spawn-sbx_abc"


def test_standard_input_can_be_attached_once_only() -> None:
    body = render()
    assert (body["OpenStdin"], body["StdinOnce"], body["Tty"]) == (True, True, False)


def test_another_runtime_is_named_only_when_set() -> None:
    assert "Runtime" not in render()["HostConfig"]
    assert render(runtime="runsc")["HostConfig"]["Runtime"] == "runsc"


def test_logs_are_capped_whatever_the_driver() -> None:
    assert render(log_driver="local", log_size="1m", log_files=3)["HostConfig"]["LogConfig"] == {
        "Type": "local",
        "Config": {"max-size": "1m", "max-file": "3"},
    }


def test_bridge_names_fit_linux_and_tell_instances_apart() -> None:
    limits = SandboxLimits(instance="a-very-long-name-of-an-installation")
    assert len(limits.bridge) <= 15
    assert limits.bridge == SandboxLimits(instance=limits.instance).bridge
    assert limits.bridge != SandboxLimits(instance="other").bridge
    assert flags.network_options(limits)["com.docker.network.bridge.name"] == limits.bridge
