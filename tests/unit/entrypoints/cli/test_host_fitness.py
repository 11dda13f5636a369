"""`hosts doctor`: each thing that may be wrong with a machine, its code and its fix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain.pool.host_facts import Survey
from orchestrator.entrypoints.cli.checks.host_fitness import Requirements, check_host
from orchestrator.entrypoints.cli.findings import Finding, Level
from tests.fakes import surveys

REQUIREMENTS = Requirements(
    address="ssh://root@203.0.113.7",
    publish_address="203.0.113.7",
    ports="21000-28999",
    runtime="",
    disk_floor_bytes=1024**3,
    memory_floor_bytes=256 * 1024**2,
)
GIB_KB = 1024**2


def check(survey: Survey, requirements: Requirements = REQUIREMENTS) -> list[Finding]:
    return list(check_host(survey, requirements))


def only_problem(survey: Survey, requirements: Requirements = REQUIREMENTS) -> Finding:
    """The single problem of a machine."""
    (problem,) = [
        finding for finding in check(survey, requirements) if finding.level is Level.PROBLEM
    ]
    return problem


def test_a_fit_machine_has_nothing_to_mend() -> None:
    assert [finding for finding in check(surveys.survey()) if finding.level is not Level.OK] == []


@pytest.mark.parametrize(
    ("sections", "code", "fix"),
    [
        ({"machine": ""}, "machine_id_missing", "systemd-machine-id-setup"),
        ({"user": "1000 debian", "sudo": ""}, "not_root", "/etc/sudoers.d/"),
        (
            {"client": "", "docker": "sh: docker: not found"},
            "docker_absent",
            "hosts bootstrap ssh://root@203.0.113.7",
        ),
        ({"docker": "Cannot connect to the daemon"}, "docker_unavailable", "systemctl"),
        (
            {"user": "1000 debian", "docker": '{"ServerErrors": ["permission denied"]}'},
            "docker_denied",
            "usermod -aG docker debian",
        ),
        ({"docker": surveys.info(ServerVersion="19.03.15")}, "docker_too_old", "20.10"),
        ({"docker": surveys.info(MemoryLimit=False)}, "limits_missing", "cgroup_enable"),
        ({"sshd": "maxsessions 1\nmaxstartups 10:30:100"}, "sshd_too_tight", "MaxSessions 10"),
        ({"sshd": "maxsessions 10\nmaxstartups 1:30:60"}, "sshd_too_tight", "MaxStartups"),
        (
            {"meminfo": "MemTotal: 1048576 kB\nMemAvailable: 102400 kB"},
            "memory_short",
            "SPAWN_HOST_MEMORY_FLOOR_MB",
        ),
        (
            {"disk": f"F\n/dev/vda1 9 9 {GIB_KB - 1} 3% /\n/var/lib/docker"},
            "disk_full",
            "docker image prune",
        ),
        ({"inodes": "F\n/dev/vda1 3000000 2990000 10000 99% /"}, "inodes_short", "du --inodes"),
        (
            {"iptables": "sh: 1: iptables: not found\n127"},
            "iptables_unusable",
            "apt-get install iptables",
        ),
        ({"iptables": "Permission denied (you must be root)\n4"}, "iptables_unusable", "sudo -n"),
        (
            {"docker": surveys.info(DefaultAddressPools=[{"Base": "172.17.0.0/16", "Size": 16}])},
            "address_pools_exhausted",
            "default-address-pools",
        ),
        (
            {"addresses": "|-- 10.0.0.5\n   /32 host LOCAL"},
            "publish_address_foreign",
            "10.0.0.5",
        ),
    ],
)
def test_what_is_wrong_with_a_machine_has_its_own_code_and_fix(
    sections: dict[str, str], code: str, fix: str
) -> None:
    problem = only_problem(surveys.survey(surveys.facts(**sections)))
    assert problem.code == code
    assert fix in problem.fix


@pytest.mark.parametrize(
    ("changes", "code", "fix"),
    [
        ({"forwarding": "it refuses"}, "forwarding_refused", "AllowStreamLocalForwarding yes"),
        ({"clock_skew_s": -300.0}, "clock_skewed", "timedatectl"),
        (
            {"publishing": "port 21000 doesn't answer"},
            "publish_unreachable",
            "ufw allow proto tcp from 198.51.100.2 to any port 21000:28999",
        ),
    ],
)
def test_what_we_try_from_here_has_its_own_code_and_fix(
    changes: dict[str, Any], code: str, fix: str
) -> None:
    problem = only_problem(surveys.survey(**changes))
    assert problem.code == code
    assert fix in problem.fix


def test_the_setting_that_forbids_to_forward_is_named() -> None:
    settings = "maxsessions 10\nmaxstartups 10:30:100\nallowstreamlocalforwarding local"
    survey = surveys.survey(surveys.facts(sshd=settings), forwarding="it refuses")
    problem = only_problem(survey)
    assert "allowstreamlocalforwarding local" in problem.detail


@pytest.mark.parametrize(
    ("survey", "name"),
    [
        (surveys.survey(clock_skew_s=30.0), "clock"),
        (surveys.survey(clock_skew_s=None), "clock"),
        (surveys.survey(surveys.facts(bridged="0")), "br_netfilter"),
        (surveys.survey(surveys.facts(bridged="")), "br_netfilter"),
        (surveys.survey(surveys.facts(tables="legacy 3\nnft 12")), "firewall"),
        (surveys.survey(surveys.facts(sshd="")), "sshd"),
        (surveys.survey(surveys.facts(docker=surveys.info(Driver="vfs"))), "storage driver"),
        (surveys.survey(surveys.facts(meminfo="")), "memory"),
        (surveys.survey(surveys.facts(disk="")), "disk"),
        (surveys.survey(published_tried=False), "publishing"),
        (
            # A VPN's route inside of a network that Docker already gave away.
            surveys.survey(
                surveys.facts(
                    routes=surveys.SECTIONS["routes"]
                    + "\ntun0\t000512AC\t0\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
                )
            ),
            "address pools",
        ),
    ],
)
def test_what_only_may_become_a_problem_is_a_warning_with_its_fix(
    survey: Survey, name: str
) -> None:
    warnings = [finding for finding in check(survey) if finding.level is not Level.OK]
    assert [(warning.name, warning.level) for warning in warnings] == [(name, Level.WARNING)]
    assert warnings[0].fix


def test_another_runtime_is_only_asked_for_where_sandboxes_need_it() -> None:
    requirements = Requirements(**{**vars(REQUIREMENTS), "runtime": "runsc"})
    problem = only_problem(surveys.survey(), requirements)
    assert problem.code == "runtime_missing"
    runsc = surveys.facts(docker=surveys.info(Runtimes={"runsc": {}}))
    findings = check(surveys.survey(runsc), requirements)
    assert all(finding.level is Level.OK for finding in findings)


def test_the_pool_that_is_advised_is_none_that_the_machine_reaches_already() -> None:
    busy = "\neth1\t0000C90A\t0\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"  # 10.201.0.0/16
    pools = surveys.info(DefaultAddressPools=[{"Base": "172.17.0.0/16", "Size": 16}])
    facts = surveys.facts(docker=pools, routes=surveys.SECTIONS["routes"] + busy)
    problem = only_problem(surveys.survey(facts))
    assert "10.201" not in problem.fix
    assert '"base": "172.30.0.0/16"' in problem.fix


@pytest.mark.parametrize("peer", ["2001:db8::7", "fe80::1%eth0", ""])
def test_a_machine_that_sees_us_over_ipv6_is_refused_unless_the_proxies_are_named(
    peer: str,
) -> None:
    survey = surveys.survey(surveys.facts(peer=peer))
    problem = only_problem(survey)
    assert problem.code == "ipv4_only"
    assert "SPAWN_PROXY_ADDRESSES" in problem.fix
    requirements = Requirements(**{**vars(REQUIREMENTS), "proxies_known": True})
    assert all(finding.level is Level.OK for finding in check(survey, requirements))


@pytest.mark.parametrize(
    ("descriptors", "slots", "advice"),
    [
        ("1024", 451, "--slots 450"),  # a link carries no more, whatever the limit is
        ("65536", 451, "--slots 450"),
        ("256", 100, "LimitNOFILE=65536"),
        ("256", None, None),  # as many slots as its memory is good for: 32
        ("1024", 450, None),
        ("unlimited", 450, None),
        ("", 1000, None),  # not measured
        ("64", None, "LimitNOFILE=65536"),
    ],
)
def test_an_sshd_that_carries_fewer_sandboxes_than_there_are_slots_is_a_warning(
    descriptors: str, slots: int | None, advice: str | None
) -> None:
    survey = surveys.survey(surveys.facts(descriptors=descriptors))
    requirements = replace(REQUIREMENTS, slots=slots)
    warnings = [f for f in check(survey, requirements) if f.level is Level.WARNING]
    assert [finding.name for finding in warnings] == ([] if advice is None else ["sshd's files"])
    assert all(advice is not None and advice in finding.fix for finding in warnings)
