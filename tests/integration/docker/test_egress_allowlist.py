"""Published ports answer only the addresses on the allowlist. A neighbouring machine tests that.

The neighbour is a network namespace on its own virtual cable. It has two addresses, of which one is
on the allowlist. Nothing leaves this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from orchestrator.adapters.docker import egress
from orchestrator.ports import SandboxSpec
from tests.integration.docker import support
from tests.integration.docker.support import Bench

# From the block that is reserved for benchmarks between networks (RFC 2544).
OUR_ADDRESS, ALLOWED, STRANGER = "198.18.77.1", "198.18.77.2", "198.18.77.3"
NEIGHBOUR = "spawn-beside"
CABLE = ("spawnbeside0", "spawnbeside1")
REQUEST = """
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
    outcome = egress.run_locally(("ip", *arguments))
    assert outcome.code == 0, f"ip {' '.join(arguments)}: {outcome.output}"


@pytest.fixture(scope="module")
def neighbour() -> Iterator[None]:
    """A machine on the same network as this one."""
    egress.run_locally(("ip", "netns", "del", NEIGHBOUR))  # a killed run leaves it behind
    ip("netns", "add", NEIGHBOUR)
    try:
        ip("link", "add", CABLE[0], "type", "veth", "peer", CABLE[1], "netns", NEIGHBOUR)
        ip("addr", "add", f"{OUR_ADDRESS}/29", "dev", CABLE[0])
        ip("link", "set", CABLE[0], "up")
        for address in (ALLOWED, STRANGER):
            ip("-n", NEIGHBOUR, "addr", "add", f"{address}/29", "dev", CABLE[1])
        ip("-n", NEIGHBOUR, "link", "set", CABLE[1], "up")
        yield
    finally:
        ip("netns", "del", NEIGHBOUR)  # deletes the cable too


@pytest.fixture(scope="module")
def bench(neighbour: None) -> Iterator[Bench]:
    with support.new_bench(allowlist=[ALLOWED]) as bench:
        yield bench


@pytest.fixture(scope="module")
def sandbox(bench: Bench) -> SandboxSpec:
    spec = bench.spec(publish_address=OUR_ADDRESS)
    bench.start(spec)
    assert support.wait_for_body(spec) == spec.identity
    return spec


def request_from(source: str, spec: SandboxSpec) -> str | None:
    """Request the app from that address. Return the body, or None without an answer."""
    inside = ("nsenter", f"--net=/var/run/netns/{NEIGHBOUR}")
    arguments = (source, spec.publish_address, str(spec.port))
    outcome = egress.run_locally((*inside, sys.executable, "-c", REQUEST, *arguments))
    if outcome.code != 0:
        assert outcome.output.startswith("no answer"), outcome.output
        return None
    return outcome.output.strip()


def list_chain(bench: Bench) -> list[str]:
    chain = f"{bench.limits.bridge.upper()}-IN"
    output = egress.run_locally(("iptables", "-w", "-t", "mangle", "-S", chain)).output
    return [line for line in output.splitlines() if line.startswith("-")]


def test_an_allowed_address_reaches_the_app_and_another_does_not(
    bench: Bench, sandbox: SandboxSpec
) -> None:
    assert request_from(ALLOWED, sandbox) == sandbox.identity
    assert request_from(STRANGER, sandbox) is None


def test_an_address_that_joins_the_allowlist_reaches_the_app(
    bench: Bench, sandbox: SandboxSpec
) -> None:
    bridge = bench.limits.bridge
    assert egress.install(bridge, egress.run_locally, [ALLOWED, STRANGER]) == []
    try:
        assert request_from(STRANGER, sandbox) == sandbox.identity
    finally:
        assert bench.engine.prepare() == []
    assert request_from(STRANGER, sandbox) is None
    assert request_from(ALLOWED, sandbox) == sandbox.identity


def test_iptables_prints_the_chain_as_we_expect_so_it_is_set_once(bench: Bench) -> None:
    wanted = list(egress.allowlist_rules(bench.limits.bridge, [ALLOWED]))
    assert list_chain(bench) == wanted
    for _ in range(2):
        assert bench.engine.prepare() == []
    assert list_chain(bench) == wanted
    rules = egress.run_locally(("iptables", "-w", "-t", "mangle", "-S", "FORWARD")).output
    assert rules.count(f"-o {bench.limits.bridge} ") == 1


def test_a_flushed_allowlist_is_set_again(bench: Bench, sandbox: SandboxSpec) -> None:
    chain = f"{bench.limits.bridge.upper()}-IN"
    egress.run_locally(("iptables", "-w", "-t", "mangle", "-F", chain))
    assert request_from(STRANGER, sandbox) == sandbox.identity
    assert bench.engine.prepare() == []
    assert request_from(STRANGER, sandbox) is None


def test_dismantling_deletes_the_allowlist(neighbour: None) -> None:
    with support.new_bench(allowlist=[ALLOWED]) as bench:
        assert len(list_chain(bench)) == 4
        bench.engine.dismantle()
        rules = egress.run_locally(("iptables", "-w", "-t", "mangle", "-S")).output
        assert bench.limits.bridge not in rules
        assert bench.limits.bridge.upper() not in rules
