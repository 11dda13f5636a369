"""Nothing gets out of a sandbox but by the agent socket: probed from inside real sandboxes.

No probe can leave this machine while the rules stand, and new_bench asserts that they do first.
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
    return started(bench, bench.spec())


@pytest.fixture(scope="module")
def neighbour(bench: Bench) -> SandboxSpec:
    """Published where sandboxes could get at it, if anything let them out."""
    return started(bench, bench.spec(publish_address=gateway(bench)))


@pytest.fixture(scope="module")
def host_port() -> Iterator[int]:
    """A listener on all addresses of the host."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def started(bench: Bench, spec: SandboxSpec) -> SandboxSpec:
    bench.start(spec)
    assert support.answer(spec) == spec.identity
    return spec


def gateway(bench: Bench) -> str:
    """The host's address on the sandboxes' bridge."""
    (found,) = json.loads(docker_cli("network", "inspect", bench.limits.network))
    return str(found["IPAM"]["Config"][0]["Gateway"])


def address_of(spec: SandboxSpec) -> str:
    found = inspect(container_name(spec.sandbox_id))
    assert found is not None
    (network,) = found["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def host_addresses(port: int) -> set[str]:
    """Of all interfaces (docker0, other bridges, the outside one), where the listener answers the
    host itself. Bridges come and go while other programs use the same engine."""
    answering = set()
    for address in egress.run_here(("hostname", "-I")).output.split():
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
            answering.add(address)
    return answering


def dropped(bench: Bench) -> int:
    """Packets that the rule on forwarded traffic has dropped so far."""
    listing = egress.run_here(("iptables", "-w", "-nvxL", "DOCKER-USER")).output
    (line,) = [line for line in listing.splitlines() if bench.limits.bridge in line]
    return int(line.split()[0])


def test_the_host_is_out_of_reach_on_all_its_addresses(
    bench: Bench, sandbox: SandboxSpec, host_port: int
) -> None:
    addresses = host_addresses(host_port)
    assert gateway(bench) in addresses
    for address in addresses:
        assert bench.probe(sandbox, "tcp", address, str(host_port)).startswith("failed"), address


def test_it_is_the_rules_that_keep_the_host_out_of_reach(
    bench: Bench, sandbox: SandboxSpec, host_port: int
) -> None:
    target = ("tcp", gateway(bench), str(host_port))
    egress.withdraw(bench.limits.bridge, egress.run_here)
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
def test_the_outside_is_out_of_reach_and_the_rule_saw_the_packets(
    bench: Bench, sandbox: SandboxSpec, probe: tuple[str, ...]
) -> None:
    before = dropped(bench)
    assert bench.probe(sandbox, *probe).startswith("failed")
    assert dropped(bench) > before


def test_dockers_own_name_server_knows_no_outside_names(bench: Bench, sandbox: SandboxSpec) -> None:
    itself = container_name(sandbox.sandbox_id)
    assert bench.probe(sandbox, "dns", "127.0.0.11", itself) == "reached"
    assert bench.probe(sandbox, "dns", "127.0.0.11", "example.com").startswith("failed")


def test_a_sandbox_has_no_ipv6_address_but_loopback(sandbox: SandboxSpec) -> None:
    name = container_name(sandbox.sandbox_id)
    listing = docker_cli("exec", name, "sh", "-c", "cat /proc/net/if_inet6 || true")
    assert {line.split()[-1] for line in listing.splitlines()} <= {"lo"}


def test_the_agent_socket_answers_also_when_it_is_made_anew(
    bench: Bench, sandbox: SandboxSpec
) -> None:
    for greeting in ("home", "home again"):
        with agent_socket(bench, greeting):
            assert bench.probe(sandbox, "unix", "/run/spawn/agent.sock") == greeting


def test_the_published_port_answers_the_host(sandbox: SandboxSpec, neighbour: SandboxSpec) -> None:
    assert support.answer(sandbox) == sandbox.identity
    assert support.answer(neighbour) == neighbour.identity


def test_the_rules_stand_once_however_often_they_are_prepared(bench: Bench) -> None:
    for _ in range(3):
        assert bench.engine.prepare() == []
    rules = egress.run_here(("iptables", "-w", "-S")).output
    assert len(re.findall(f"-A DOCKER-USER -i {bench.limits.bridge} .*-j DROP", rules)) == 1
    assert len(re.findall(f"-A INPUT -i {bench.limits.bridge} .*-j DROP", rules)) == 1


def test_dismantling_takes_every_rule_away() -> None:
    with support.new_bench() as bench:
        bridge = bench.limits.bridge
        assert bridge in egress.run_here(("iptables", "-w", "-S")).output
        bench.engine.dismantle()
        for program in ("iptables", "ip6tables"):
            assert bridge not in egress.run_here((program, "-w", "-S")).output


@contextlib.contextmanager
def agent_socket(bench: Bench, greeting: str) -> Iterator[None]:
    """Somebody who says one line to whoever connects to the socket in the agent folder."""
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
