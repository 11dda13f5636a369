"""Published ports answer the proxy's addresses alone: asked from a machine beside this one.

That machine is a network namespace on a cable of its own, with two addresses: a guest's and a
stranger's. Nothing leaves this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from orchestrator.adapters.docker import egress
from orchestrator.ports import SandboxSpec
from tests.integration.docker import support
from tests.integration.docker.support import Bench

# Of the block that is reserved for measurements between networks (RFC 2544).
HERE, GUEST, STRANGER = "198.18.77.1", "198.18.77.2", "198.18.77.3"
BESIDE = "spawn-beside"
CABLE = ("spawnbeside0", "spawnbeside1")
ASK = """
import socket, sys
source, address, port = sys.argv[1:]
try:
    link = socket.create_connection((address, int(port)), timeout=2, source_address=(source, 0))
except OSError as error:
    sys.exit(f"no answer: {error}")
link.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(link.makefile().read().splitlines()[-1])
"""


def ip(*arguments: str) -> None:
    outcome = egress.run_here(("ip", *arguments))
    assert outcome.code == 0, f"ip {' '.join(arguments)}: {outcome.output}"


@pytest.fixture(scope="module")
def beside() -> Iterator[None]:
    """A machine on a network with this one."""
    egress.run_here(("ip", "netns", "del", BESIDE))  # of a run that was killed
    ip("netns", "add", BESIDE)
    try:
        ip("link", "add", CABLE[0], "type", "veth", "peer", CABLE[1], "netns", BESIDE)
        ip("addr", "add", f"{HERE}/29", "dev", CABLE[0])
        ip("link", "set", CABLE[0], "up")
        for address in (GUEST, STRANGER):
            ip("-n", BESIDE, "addr", "add", f"{address}/29", "dev", CABLE[1])
        ip("-n", BESIDE, "link", "set", CABLE[1], "up")
        yield
    finally:
        ip("netns", "del", BESIDE)  # takes the cable with it


@pytest.fixture(scope="module")
def bench(beside: None) -> Iterator[Bench]:
    with support.new_bench(guests=[GUEST]) as bench:
        yield bench


@pytest.fixture(scope="module")
def sandbox(bench: Bench) -> SandboxSpec:
    spec = bench.spec(publish_address=HERE)
    bench.start(spec)
    assert support.answer(spec) == spec.identity
    return spec


def asked(source: str, spec: SandboxSpec) -> str | None:
    """What the sandbox answers to that address; None when it doesn't."""
    inside = ("nsenter", f"--net=/var/run/netns/{BESIDE}")
    what = (source, spec.publish_address, str(spec.port))
    outcome = egress.run_here((*inside, sys.executable, "-c", ASK, *what))
    if outcome.code != 0:
        assert outcome.output.startswith("no answer"), outcome.output
        return None
    return outcome.output.strip()


def listed(bench: Bench) -> list[str]:
    chain = f"{bench.limits.bridge.upper()}-IN"
    return egress.run_here(("iptables", "-w", "-S", chain)).output.strip().split("\n")


def test_a_guest_reaches_the_app_and_a_stranger_does_not(
    bench: Bench, sandbox: SandboxSpec
) -> None:
    assert asked(GUEST, sandbox) == sandbox.identity
    assert asked(STRANGER, sandbox) is None


def test_it_is_the_guest_list_that_keeps_the_stranger_out(
    bench: Bench, sandbox: SandboxSpec
) -> None:
    bridge = bench.limits.bridge
    assert egress.install(bridge, egress.run_here, [GUEST, STRANGER]) == []
    try:
        assert asked(STRANGER, sandbox) == sandbox.identity
    finally:
        assert bench.engine.prepare() == []
    assert asked(STRANGER, sandbox) is None
    assert asked(GUEST, sandbox) == sandbox.identity


def test_iptables_prints_the_list_as_we_expect_it_so_that_it_is_set_once(bench: Bench) -> None:
    wanted = list(egress.guest_list(bench.limits.bridge, [GUEST]))
    assert listed(bench) == wanted
    for _ in range(2):
        assert bench.engine.prepare() == []
    assert listed(bench) == wanted
    rules = egress.run_here(("iptables", "-w", "-S", "DOCKER-USER")).output
    assert rules.count(f"-o {bench.limits.bridge} ") == 1


def test_a_list_that_somebody_flushed_is_set_again(bench: Bench, sandbox: SandboxSpec) -> None:
    egress.run_here(("iptables", "-w", "-F", f"{bench.limits.bridge.upper()}-IN"))
    assert asked(STRANGER, sandbox) == sandbox.identity
    assert bench.engine.prepare() == []
    assert asked(STRANGER, sandbox) is None


def test_dismantling_takes_the_list_away(beside: None) -> None:
    with support.new_bench(guests=[GUEST]) as bench:
        assert len(listed(bench)) == 4
        bench.engine.dismantle()
        rules = egress.run_here(("iptables", "-w", "-S")).output
        assert bench.limits.bridge not in rules
        assert bench.limits.bridge.upper() not in rules
