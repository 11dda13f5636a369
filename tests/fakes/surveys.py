"""A survey of a fit machine: as adapters/hosts/survey.py's script prints it, and parsed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from orchestrator.domain.pool import host_facts
from orchestrator.domain.pool.host_facts import HostFacts, Survey

INFO: dict[str, Any] = {
    "ServerVersion": "20.10.24+dfsg1",
    "Driver": "overlay2",
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "Runtimes": {"runc": {}, "io.containerd.runc.v2": {}},
    "DockerRootDir": "/var/lib/docker",
}
SECTIONS = {
    "clock": "1900000000.250000000",
    "user": "0 root",
    "peer": "198.51.100.2",
    "sudo": "yes",
    "os": 'PRETTY_NAME="Ubuntu 24.04 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"',
    "machine": "0123456789abcdef0123456789abcdef",
    "cpus": "4",
    "meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB",
    "client": "yes",
    "docker": "WARNING: no swap limit support\n" + json.dumps(INFO),
    "disk": "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
    "/dev/vda1 50000000 1000000 41943040 3% /\n/var/lib/docker",
    "inodes": "Filesystem Inodes IUsed IFree IUse% Mounted on\n"
    "/dev/vda1 3276800 76800 3200000 3% /",
    "networks": "172.17.0.0/16 \n172.18.0.0/16 fd00:1::/64 ",
    "sshd": "port 22\nmaxsessions 10\nmaxstartups 10:30:100\nallowstreamlocalforwarding yes\n"
    "disableforwarding no",
    "descriptors": "1024",
    "iptables": "-P PREROUTING ACCEPT\n0",
    "tables": "legacy 0\nnft 12",
    "bridged": "1",
    "addresses": "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
    "     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 203.0.113.7\n        /32 host LOCAL\n"
    "     |-- 203.0.113.255\n        /32 link BROADCAST",
    "routes": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t017100CB\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t007100CB\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",
}


def text(**sections: str) -> str:
    """The script's output, with some sections changed."""
    return "".join(f"\n@@ {name}\n{body}\n" for name, body in {**SECTIONS, **sections}.items())


def facts(**sections: str) -> HostFacts:
    return host_facts.parse(text(**sections))


def survey(host: HostFacts | None = None, **changes: Any) -> Survey:
    """A survey of a fit machine, with some fields changed."""
    fit = Survey(
        facts=host or facts(),
        clock_skew_s=0.1,
        forwarding="",
        publishing="",
        published_tried=True,
    )
    return replace(fit, **changes)


def info(**changes: Any) -> str:
    """The text of the section "docker", with some facts changed."""
    return json.dumps({**INFO, **changes})
