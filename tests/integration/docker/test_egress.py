"""The agent socket is the only way out of a sandbox. Real sandboxes probe that from inside.

No probe can leave this machine while the rules are set, and new_bench asserts that first.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from orchestrator.adapters.docker import egress
from orchestrator.adapters.docker.flags import container_name
from orchestrator.ports import SandboxSpec
from tests.integration.docker import support
from tests.integration.docker.support import Bench, docker_cli, inspect


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with support.new_bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def sandbox(bench: Bench) -> SandboxSpec:
    return start(bench, bench.spec())


@pytest.fixture(scope="module")
def neighbour(bench: Bench) -> SandboxSpec:
    """Published at an address that sandboxes could reach, if the rules let them out."""
    return start(bench, bench.spec(publish_address=gateway(bench)))


@pytest.fixture(scope="module")
def host_port() -> Iterator[int]:
    """A listener on all addresses of the host."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def start(bench: Bench, spec: SandboxSpec) -> SandboxSpec:
    bench.start(spec)
    assert support.wait_for_body(spec) == spec.identity
    return spec


def gateway(bench: Bench) -> str:
    """The host's address on the sandboxes' bridge."""
    (network,) = json.loads(docker_cli("network", "inspect", bench.limits.network))
    return str(network["IPAM"]["Config"][0]["Gateway"])


def address_of(spec: SandboxSpec) -> str:
    details = inspect(container_name(spec.sandbox_id))
    assert details is not None
    (network,) = details["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def host_addresses(port: int) -> set[str]:
    """Return the host's addresses on all interfaces at which the listener answers the host itself.

    Bridges appear and disappear while other programs use the same engine.
    """
    addresses = set()
    for address in egress.run_locally(("hostname", "-I")).output.split():
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
            addresses.add(address)
    return addresses


def count_dropped(bench: Bench) -> int:
    """Return how many packets the rule has dropped so far."""
    listing = egress.run_locally(("iptables", "-w", "-t", "mangle", "-nvxL", "PREROUTING")).output
    (line,) = [line for line in listing.splitlines() if bench.limits.bridge in line]
    return int(line.split()[0])


def list_rules(program: str) -> str:
    return egress.run_locally((program, "-w", "-t", "mangle", "-S")).output


def test_the_host_is_out_of_reach_on_all_its_addresses(
    bench: Bench, sandbox: SandboxSpec, host_port: int
) -> None:
    addresses = host_addresses(host_port)
    assert gateway(bench) in addresses
    for address in addresses:
        assert bench.probe(sandbox, "tcp", address, str(host_port)).startswith("failed"), address


def test_without_the_rules_the_host_is_reachable(
    bench: Bench, sandbox: SandboxSpec, host_port: int
) -> None:
    target = ("tcp", gateway(bench), str(host_port))
    egress.withdraw(bench.limits.bridge, egress.run_locally)
    try:
        assert bench.probe(sandbox, *target) == "reached"
    finally:
        assert bench.engine.prepare() == []
    assert bench.probe(sandbox, *target).startswith("failed")


def test_another_sandbox_is_out_of_reach(
    bench: Bench, sandbox: SandboxSpec, neighbour: SandboxSpec
) -> None:
    own, other = address_of(sandbox), address_of(neighbour)
    assert bench.probe(neighbour, "tcp", other, "3000") == "reached"
    assert bench.probe(sandbox, "tcp", own, "3000") == "reached"
    assert bench.probe(sandbox, "tcp", other, "3000").startswith("failed")
    published = ("tcp", neighbour.publish_address, str(neighbour.port))
    assert bench.probe(sandbox, *published).startswith("failed")


@pytest.mark.parametrize(
    "probe",
    [
        pytest.param(("tcp", "169.254.169.254", "80"), id="metadata service of clouds"),
        pytest.param(("tcp", "198.51.100.1", "443"), id="address reserved for documentation"),
        pytest.param(("dns", "8.8.8.8", "example.com"), id="public name server"),
    ],
)
def test_the_internet_is_out_of_reach_and_the_rule_counts_the_packets(
    bench: Bench, sandbox: SandboxSpec, probe: tuple[str, ...]
) -> None:
    before = count_dropped(bench)
    assert bench.probe(sandbox, *probe).startswith("failed")
    assert count_dropped(bench) > before


def test_dockers_own_name_server_resolves_no_outside_names(
    bench: Bench, sandbox: SandboxSpec
) -> None:
    own_name = container_name(sandbox.sandbox_id)
    assert bench.probe(sandbox, "dns", "127.0.0.11", own_name) == "reached"
    assert bench.probe(sandbox, "dns", "127.0.0.11", "example.com").startswith("failed")


def test_a_sandbox_has_no_ipv6_address_except_loopback(sandbox: SandboxSpec) -> None:
    name = container_name(sandbox.sandbox_id)
    listing = docker_cli("exec", name, "sh", "-c", "cat /proc/net/if_inet6 || true")
    assert {line.split()[-1] for line in listing.splitlines()} <= {"lo"}


def test_the_agent_socket_answers_even_after_it_was_replaced(
    bench: Bench, sandbox: SandboxSpec
) -> None:
    for greeting in ("first", "second"):
        with agent_socket(bench, greeting):
            assert bench.probe(sandbox, "unix", "/run/spawn/agent.sock") == greeting


def test_the_published_port_answers_the_host(sandbox: SandboxSpec, neighbour: SandboxSpec) -> None:
    assert support.wait_for_body(sandbox) == sandbox.identity
    assert support.wait_for_body(neighbour) == neighbour.identity


def test_preparing_repeatedly_sets_each_rule_once(bench: Bench) -> None:
    for _ in range(3):
        assert bench.engine.prepare() == []
    rules = list_rules("iptables")
    assert len(re.findall(f"-A PREROUTING -i {bench.limits.bridge} .*-j DROP", rules)) == 1


def test_dismantling_deletes_every_rule() -> None:
    with support.new_bench() as bench:
        bridge = bench.limits.bridge
        assert bridge in list_rules("iptables")
        bench.engine.dismantle()
        for program in ("iptables", "ip6tables"):
            assert bridge not in list_rules(program)


@contextlib.contextmanager
def agent_socket(bench: Bench, greeting: str) -> Iterator[None]:
    """Send one line to the first client of the socket in the agent folder."""
    path = bench.agent_folder / "agent.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.settimeout(20)

        def greet() -> None:
            with contextlib.closing(listener.accept()[0]) as peer:
                peer.sendall(greeting.encode() + b"\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        yield
        greeter.join(timeout=20)
