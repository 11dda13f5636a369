"""What a machine's commands print, as facts; and what they don't print, as unknown."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.domain.pool import docker_facts, host_facts
from orchestrator.domain.pool.host_facts import Room, Route
from tests.fakes import surveys


def test_a_fit_machine_is_read_whole() -> None:
    found = surveys.facts()
    assert (found.user, found.root, found.sudo) == ("root", True, True)
    assert found.os == "Ubuntu 24.04 LTS"
    assert found.os_ids == {"ubuntu", "debian"}
    assert found.machine_id == "0123456789abcdef" * 2
    assert found.clock_s == 1900000000.25
    assert (found.memory_bytes, found.available_bytes) == (8 * 1024**3, 4 * 1024**3)
    assert found.cpus == 4
    assert found.room == Room(
        folder="/var/lib/docker", free_bytes=40 * 1024**3, inodes=3276800, free_inodes=3200000
    )
    assert found.sshd["maxstartups"] == "10:30:100"
    assert (found.iptables, found.bridged) == ("", True)
    assert found.seen_from == "198.51.100.2"


def test_docker_is_found_behind_the_warnings_of_its_command() -> None:
    found = surveys.facts().docker
    assert found is not None
    assert (found.version, found.driver, found.cgroup_version) == (
        "20.10.24+dfsg1",
        "overlay2",
        "2",
    )
    assert found.limits_missing == ()
    assert found.root == "/var/lib/docker"
    assert not found.too_old


def test_networks_are_read_from_what_the_kernel_says() -> None:
    found = surveys.facts()
    assert found.addresses == (IPv4Address("127.0.0.1"), IPv4Address("203.0.113.7"))
    assert found.routes == (
        Route(interface="eth0", network=IPv4Network("203.0.113.0/24")),
        Route(interface="docker0", network=IPv4Network("172.17.0.0/16")),
    )
    assert found.networks == (IPv4Network("172.17.0.0/16"), IPv4Network("172.18.0.0/16"))


def test_what_a_machine_does_not_say_is_unknown_and_nothing_fails() -> None:
    found = host_facts.parse("")
    assert found.docker is None
    assert found.room is None
    assert found.bridged is None
    assert found.machine_id == ""
    assert (found.memory_bytes, found.available_bytes, found.clock_s) == (None, None, None)
    assert found.sshd == {}
    assert found.addresses == found.routes == found.networks == ()


@pytest.mark.parametrize("machine", ["", "uninitialized", "0123", "0123456789abcdef" * 2 + "0"])
def test_only_a_whole_machine_id_counts(machine: str) -> None:
    assert surveys.facts(machine=machine).machine_id == ""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("sh: 1: docker: not found", "not found"),
        (json.dumps({"ServerErrors": ["permission denied on /var/run/docker.sock"]}), "denied"),
        ("Cannot connect to the Docker daemon", "Cannot connect"),
    ],
)
def test_a_docker_that_does_not_answer_says_why(said: str, reason: str) -> None:
    found = surveys.facts(docker=said)
    assert found.docker is None
    assert reason in found.docker_said


def test_a_user_who_is_not_root_may_still_become_it() -> None:
    found = surveys.facts(user="1000 debian")
    assert (found.user, found.root, found.sudo) == ("debian", False, True)
    assert not surveys.facts(user="1000 debian", sudo="").sudo


def test_a_refusal_to_show_sshds_settings_is_no_setting() -> None:
    assert surveys.facts(sshd="sshd: no hostkeys available -- exiting.").sshd == {}


def test_iptables_is_judged_by_its_exit_code_and_quoted_when_it_fails() -> None:
    assert surveys.facts(iptables="sh: 1: iptables: not found\n127").iptables.endswith("not found")
    assert surveys.facts(iptables="\n4").iptables == "exit code 4"
    assert surveys.facts(iptables="0").iptables == ""


@pytest.mark.parametrize("inodes", ["", "Filesystem Inodes\n/dev/vda1 0 0 0 - /"])
def test_a_file_system_without_a_number_of_inodes_is_told_by_0(inodes: str) -> None:
    room = surveys.facts(inodes=inodes).room
    assert room is not None
    assert (room.inodes, room.free_inodes) == (0, 0)


def test_an_engine_without_pools_of_its_own_has_those_of_docker() -> None:
    pools = docker_facts.of_info(surveys.INFO).pools
    assert len(pools) == 16
    own = docker_facts.of_info(
        {**surveys.INFO, "DefaultAddressPools": [{"Base": "10.5.0.0/16", "Size": 24}]}
    )
    assert [(str(one.base), one.size) for one in own.pools] == [("10.5.0.0/16", 24)]


@pytest.mark.parametrize(
    ("missing", "said"),
    [("MemoryLimit", "memory"), ("CpuCfsQuota", "CPU"), ("PidsLimit", "process")],
)
def test_a_limit_that_the_kernel_can_not_set_is_named(missing: str, said: str) -> None:
    assert docker_facts.of_info({**surveys.INFO, missing: False}).limits_missing == (said,)
