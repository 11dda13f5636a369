"""The fences hold whatever Docker and other programs do with their own rules.

Real engines with firewalls of their own, in which a sandbox tries to reach its host, a neighbour
and another network.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.docker import egress
from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits, container_name
from orchestrator.domain import ids
from orchestrator.ports import SandboxSpec
from tests.integration.docker import own_engine, support
from tests.integration.docker.own_engine import OwnEngine

PORT = "8099"  # where the engine's machine and its neighbour listen, on all addresses
FAR_AWAY = "10.254.9.2"  # another machine, on another network
LISTEN = """
from http.server import HTTPServer, SimpleHTTPRequestHandler
HTTPServer(("0.0.0.0", 8099), SimpleHTTPRequestHandler).serve_forever()
"""
# Another machine is a network namespace on a virtual cable. It sends its answers to ours.
CABLE = """
ip netns add far
ip link add near type veth peer far netns far
ip addr add 10.254.9.1/24 dev near
ip link set near up
ip -n far addr add 10.254.9.2/24 dev far
ip -n far link set far up
ip -n far route add default via 10.254.9.1
setsid python3 -c "$0" >/dev/null 2>&1 </dev/null & echo $!
setsid ip netns exec far python3 -c "$0" >/dev/null 2>&1 </dev/null & echo $!
"""
REQUEST = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)"


@dataclass(kw_only=True)
class Machine:
    """An engine's machine with two sandboxes on it."""

    own: OwnEngine
    engine: DockerEngine
    limits: SandboxLimits
    specs: Sequence[SandboxSpec]

    def iptables(self, *argv: str) -> str:
        outcome = self.own.run(("iptables", "-w", "5", *argv))
        assert outcome.code == 0, outcome.output
        return outcome.output

    def address_of(self, spec: SandboxSpec) -> str:
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.own.docker("inspect", "--format", template, container_name(spec.sandbox_id))

    def probe(self, *argv: str) -> str:
        """What the first sandbox gets when it tries that: "reached", or "failed" and why."""
        name = container_name(self.specs[0].sandbox_id)
        argv = ("exec", name, "sh", "-c", 'perl /probe.pl "$@" || true', "sh", *argv)
        return self.own.docker(*argv)

    def reached(self) -> set[str]:
        """What the first sandbox reaches."""
        (network,) = json.loads(self.own.docker("network", "inspect", self.limits.network))
        gateway = network["IPAM"]["Config"][0]["Gateway"]
        targets = {
            "its host": (gateway, PORT),
            "another network": (FAR_AWAY, PORT),
            "its neighbour": (self.address_of(self.specs[1]), "3000"),
        }
        return {
            name
            for name, (address, port) in targets.items()
            if self.probe("tcp", address, port) == "reached"
        }

    def answers_its_host(self) -> bool:
        """Whether the machine itself reaches the first sandbox: answers may leave it."""
        return self._answers(f"http://{self.address_of(self.specs[0])}:3000/")

    def can_be_reached_from_far_away(self) -> bool:
        """Whether the other machine reaches the first sandbox, as a proxy does."""
        url = f"http://{self.address_of(self.specs[0])}:3000/"
        return self._answers(url, "ip", "netns", "exec", "far")

    def _answers(self, url: str, *place: str) -> bool:
        return self.own.run((*place, "python3", "-c", REQUEST, url)).code == 0

    def listens(self) -> bool:
        return all(self._answers(f"http://{name}:{PORT}/") for name in ("127.0.0.1", FAR_AWAY))


@contextlib.contextmanager
def machine(*flags: str) -> Iterator[Machine]:
    limits = SandboxLimits(instance="fences")
    with (
        own_engine.started(*flags) as own,
        contextlib.closing(DockerEngine(own.url, limits, run=own.run)) as engine,
        tempfile.TemporaryDirectory(prefix="spawn-agent-") as folder,
    ):
        Path(folder).chmod(0o755)
        own.load(support.probe_image())
        laid = own.run(("sh", "-ec", CABLE, LISTEN))
        assert laid.code == 0, laid.output
        try:
            assert engine.prepare() == []
            specs = [_spec(folder, port) for port in (21000, 21001)]
            for spec in specs:
                engine.start(spec)
            machine = Machine(own=own, engine=engine, limits=limits, specs=specs)
            support.eventually("the sandbox serves", machine.answers_its_host)
            support.eventually("both machines listen", machine.listens)
            yield machine
        finally:
            own.run(("kill", *laid.output.split()))


def _spec(folder: str, port: int) -> SandboxSpec:
    return SandboxSpec(
        sandbox_id=ids.new_sandbox_id(),
        image=support.probe_image(),
        publish_address="127.0.0.1",
        port=port,
        agent_folder=folder,
        identity="{}",
        cpus=0.5,
    )


@pytest.fixture(scope="module")
def usual() -> Iterator[Machine]:
    with machine() as usual:
        yield usual


def check_fence(machine: Machine) -> None:
    assert machine.reached() == set()
    assert machine.answers_its_host()


def test_the_probes_reach_what_no_fence_keeps_them_from(usual: Machine) -> None:
    egress.withdraw(usual.limits.bridge, usual.own.run)
    try:
        assert usual.reached() >= {"its host", "another network"}
    finally:
        assert usual.engine.prepare() == []
    check_fence(usual)


@pytest.mark.parametrize(
    "change",
    [
        ("-D FORWARD -j DOCKER-USER",),
        ("-I INPUT -j ACCEPT", "-I FORWARD -j ACCEPT"),
        ("-F",),
        ("-F INPUT", "-F DOCKER-USER"),
    ],
    ids=["nothing leads to DOCKER-USER", "all is accepted first", "flushed", "partly flushed"],
)
def test_what_others_do_with_the_filter_rules_opens_no_fence(
    usual: Machine, change: Sequence[str]
) -> None:
    saved = usual.own.run(("iptables-save", "-t", "filter")).output
    try:
        for rule in change:
            usual.iptables(*rule.split())
        check_fence(usual)
    finally:
        lines = saved.splitlines()
        restore = 'printf "%s\\n" "$@" | iptables-restore -w 5'
        assert usual.own.run(("sh", "-c", restore, "sh", *lines)).code == 0


def test_a_flushed_fence_is_set_again(usual: Machine) -> None:
    usual.iptables("-t", "mangle", "-F")
    assert usual.reached()
    assert usual.engine.prepare() == []
    check_fence(usual)


def test_a_fence_of_one_kind_of_tables_holds_beside_a_docker_that_uses_the_other(
    usual: Machine,
) -> None:
    """As on a machine whose alternative for iptables was switched after Docker had started."""
    egress.withdraw(usual.limits.bridge, usual.own.run)
    try:
        with usual.own.legacy_tables():
            assert usual.reached()
            assert usual.engine.prepare() == []
            check_fence(usual)
            egress.withdraw(usual.limits.bridge, usual.own.run)
    finally:
        assert usual.engine.prepare() == []


def test_a_fence_holds_where_docker_makes_no_iptables_rules() -> None:
    """As with its nftables backend: there is no chain DOCKER-USER, and no rule between
    neighbours."""
    with machine("--iptables=false", "--ip6tables=false") as bare:
        assert "DOCKER" not in bare.iptables("-S")
        check_fence(bare)
        egress.withdraw(bare.limits.bridge, bare.own.run)
        assert bare.reached() == {"its host", "another network", "its neighbour"}


def test_rules_of_an_earlier_release_are_gone_when_ours_are_set(usual: Machine) -> None:
    """Their allowlist would keep out a proxy that has another address now."""
    bridge = usual.limits.bridge
    chain = f"{bridge.upper()}-IN"
    before = usual.iptables("-S")
    assert usual.can_be_reached_from_far_away()
    for rule in (
        f"-N {chain}",
        f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        f"-A {chain} -s 10.9.9.9 -j RETURN",
        f"-A {chain} -j DROP",
        f"-I DOCKER-USER -o {bridge} -j {chain}",
        f"-I DOCKER-USER -i {bridge} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
        f"-I INPUT -i {bridge} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
    ):
        usual.iptables(*rule.split())
    assert not usual.can_be_reached_from_far_away()
    assert usual.engine.prepare() == []
    assert usual.iptables("-S") == before
    assert usual.can_be_reached_from_far_away()
    check_fence(usual)


def test_an_engine_on_another_network_than_we_is_named(usual: Machine) -> None:
    """As rootless Docker, or an engine of another machine behind a TCP address."""
    with contextlib.closing(DockerEngine(usual.own.url, usual.limits)) as engine:
        (warning,) = engine.prepare()
    assert "rootless" in warning
    assert usual.limits.bridge in warning
