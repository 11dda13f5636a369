"""The output of a machine's commands becomes facts. What is missing becomes unknown."""

from __future__ import annotations

import json
import sys
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.domain.pool import docker_facts, host_facts
from orchestrator.domain.pool.host_facts import DiskSpace, Route
from tests.fakes import surveys


def test_all_facts_of_a_fit_machine_are_parsed() -> None:
    facts = surveys.facts()
    assert (facts.user, facts.root, facts.sudo) == ("root", True, True)
    assert facts.os == "Ubuntu 24.04 LTS"
    assert facts.machine_id == "0123456789abcdef" * 2
    assert facts.clock_s == 1900000000.25
    assert (facts.memory_bytes, facts.available_bytes) == (8 * 1024**3, 4 * 1024**3)
    assert facts.cpus == 4
    assert facts.disk == DiskSpace(
        folder="/var/lib/docker", free_bytes=40 * 1024**3, inodes=3276800, free_inodes=3200000
    )
    assert facts.sshd["maxstartups"] == "10:30:100"
    assert facts.sshd_descriptors == 1024
    assert (facts.iptables, facts.bridged) == ("", True)
    assert facts.our_address == "198.51.100.2"


def test_docker_is_found_behind_the_warnings_of_its_command() -> None:
    docker = surveys.facts().docker
    assert docker is not None
    assert (docker.version, docker.driver, docker.cgroup_version) == (
        "20.10.24+dfsg1",
        "overlay2",
        "2",
    )
    assert docker.limits_missing == ()
    assert docker.root == "/var/lib/docker"
    assert not docker.is_too_old


def test_networks_are_parsed_from_the_files_of_the_kernel() -> None:
    facts = surveys.facts()
    assert facts.addresses == (IPv4Address("127.0.0.1"), IPv4Address("203.0.113.7"))
    assert facts.routes == (
        Route(interface="eth0", network=IPv4Network("203.0.113.0/24")),
        Route(interface="docker0", network=IPv4Network("172.17.0.0/16")),
    )
    assert facts.networks == (IPv4Network("172.17.0.0/16"), IPv4Network("172.18.0.0/16"))


def test_facts_that_are_missing_are_unknown_and_nothing_fails() -> None:
    facts = host_facts.parse("")
    assert facts.docker is None
    assert facts.disk is None
    assert facts.bridged is None
    assert facts.machine_id == ""
    assert facts.sshd_descriptors is None
    assert (facts.memory_bytes, facts.available_bytes, facts.clock_s) == (None, None, None)
    assert facts.sshd == {}
    assert facts.addresses == facts.routes == facts.networks == ()


@pytest.mark.parametrize("machine", ["", "uninitialized", "0123", "0123456789abcdef" * 2 + "0"])
def test_only_a_whole_machine_id_counts(machine: str) -> None:
    assert surveys.facts(machine=machine).machine_id == ""


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("sh: 1: docker: not found", "not found"),
        (json.dumps({"ServerErrors": ["permission denied on /var/run/docker.sock"]}), "denied"),
        ("Cannot connect to the Docker daemon", "Cannot connect"),
    ],
)
def test_a_docker_that_does_not_answer_gives_its_error(output: str, reason: str) -> None:
    facts = surveys.facts(docker=output)
    assert facts.docker is None
    assert reason in facts.docker_error


def test_a_user_who_is_not_root_may_have_sudo() -> None:
    facts = surveys.facts(user="1000 debian")
    assert (facts.user, facts.root, facts.sudo) == ("debian", False, True)
    assert not surveys.facts(user="1000 debian", sudo="").sudo


def test_a_refusal_to_show_sshds_settings_is_no_setting() -> None:
    assert surveys.facts(sshd="sshd: no hostkeys available -- exiting.").sshd == {}


def test_iptables_is_judged_by_its_exit_code_and_quoted_when_it_fails() -> None:
    assert surveys.facts(iptables="sh: 1: iptables: not found\n127").iptables.endswith("not found")
    assert surveys.facts(iptables="\n4").iptables == "exit code 4"
    assert surveys.facts(iptables="0").iptables == ""


def test_the_rules_of_both_kinds_of_iptables_are_counted() -> None:
    assert surveys.facts().tables == {"legacy": 0, "nft": 12}
    assert surveys.facts(tables="legacy \nnft 3\nother 4").tables == {"nft": 3}


def test_what_docker_sets_its_rules_with_is_known_from_version_29_on() -> None:
    for backend, firewall in (({"Driver": "nftables"}, "nftables"), (None, ""), ({}, "")):
        docker = surveys.facts(docker=surveys.info(FirewallBackend=backend)).docker
        assert docker is not None
        assert docker.firewall == firewall


@pytest.mark.parametrize("inodes", ["", "Filesystem Inodes\n/dev/vda1 0 0 0 - /"])
def test_a_file_system_without_a_number_of_inodes_has_0(inodes: str) -> None:
    disk = surveys.facts(inodes=inodes).disk
    assert disk is not None
    assert (disk.inodes, disk.free_inodes) == (0, 0)


def test_an_engine_without_configured_pools_has_the_defaults() -> None:
    pools = docker_facts.parse_info(surveys.INFO).pools
    assert len(pools) == 16
    configured = docker_facts.parse_info(
        {**surveys.INFO, "DefaultAddressPools": [{"Base": "10.5.0.0/16", "Size": 24}]}
    )
    assert [(str(pool.base), pool.size) for pool in configured.pools] == [("10.5.0.0/16", 24)]


@pytest.mark.parametrize(
    ("missing", "limit"),
    [("MemoryLimit", "memory"), ("CpuCfsQuota", "CPU"), ("PidsLimit", "process")],
)
def test_a_limit_that_the_kernel_can_not_set_is_named(missing: str, limit: str) -> None:
    assert docker_facts.parse_info({**surveys.INFO, missing: False}).limits_missing == (limit,)


@pytest.mark.parametrize(
    "sections",
    [
        {"docker": '{"ServerVersion": "27.0"}'},
        {"docker": '{"ServerVersion": "27.0", "Driver": "d", "DockerRootDir": "/", "Runtimes": 5}'},
        {"docker": surveys.info(DefaultAddressPools=[{"Base": "10.0.0.0/8"}])},
        {"docker": "{" + '"ServerVersion":' + "[" * 100_000},
        {"docker": surveys.info(ServerErrors=5)},
        {"routes": "Iface Destination\neth0 xyz\nhello"},
        {"addresses": "|-- 999.1.1.1\n  /32 host LOCAL"},
        {"networks": "999.1.1.1/99 hello/1 172.17.0.0/16"},
        {"cpus": "many", "meminfo": "lots", "disk": "", "clock": "noon"},
    ],
    ids=range(9),
)
def test_an_odd_answer_is_an_unknown_fact_and_no_crash(sections: dict[str, str]) -> None:
    facts = surveys.facts(**sections)
    if "docker" in sections:
        assert facts.docker is None
        assert 0 < len(facts.docker_error) <= 300


@pytest.mark.parametrize("number", ["9" * 19, "9" * 400, "9" * 5000], ids=len)
def test_a_number_beyond_all_sizes_is_unknown(number: str) -> None:
    facts = surveys.facts(
        clock=number,
        cpus=number,
        descriptors=number,
        meminfo=f"MemTotal: {number} kB\nMemAvailable: {number} kB",
        disk=f"Filesystem\n/dev/vda1 1 1 {number} 1% /\n/var/lib/docker",
        tables=f"nft {number}",
    )
    assert (facts.clock_s, facts.cpus, facts.sshd_descriptors) == (None, 1, None)
    assert (facts.memory_bytes, facts.available_bytes) == (None, None)
    assert (facts.disk, facts.tables) == (None, {})
    disk = surveys.facts(inodes=f"Filesystem\n/dev/vda1 {number} 0 {number} 1% /").disk
    assert disk is not None
    assert (disk.inodes, disk.free_inodes) == (0, 0)


def test_what_a_command_says_is_cut() -> None:
    assert len(surveys.facts(docker="x " * 1000).docker_error) == 300
    assert len(surveys.facts(iptables="x " * 1000 + "\n1").iptables) == 200
    assert surveys.facts(descriptors="unlimited").sshd_descriptors == sys.maxsize
