"""What a look at a published port sees of Docker's part in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from orchestrator.adapters.docker.flags import container_name
from orchestrator.adapters.proxy.port_looks import TcpPortLooks
from orchestrator.domain.pool.published_ports import PortAnswer
from tests.docker_proxies import proxies_of
from tests.fleet import undo_at_end
from tests.integration.docker import support
from tests.integration.docker.support import Bench, docker_cli


@pytest.fixture
def bench() -> Iterator[Bench]:
    with support.new_bench() as bench:
        yield bench


def test_a_docker_proxy_that_hangs_or_has_ended_is_told_from_one_that_works(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    support.wait_for_body(spec)
    endpoint = ("127.0.0.1", spec.port)
    assert TcpPortLooks().look([endpoint]) == {endpoint: PortAnswer.OPEN}
    (proxy,) = proxies_of(spec.port)
    with undo_at_end(lambda: os.kill(proxy, signal.SIGCONT)):
        os.kill(proxy, signal.SIGSTOP)
        assert TcpPortLooks().look([endpoint]) == {endpoint: PortAnswer.MUTE}
    assert TcpPortLooks().look([endpoint]) == {endpoint: PortAnswer.OPEN}
    os.kill(proxy, signal.SIGKILL)
    support.eventually(
        "the port refuses", lambda: TcpPortLooks().look([endpoint])[endpoint] is PortAnswer.REFUSED
    )


def test_the_host_tells_a_dead_port_from_a_dead_app(bench: Bench) -> None:
    working, dead, hanging, gone = specs = [bench.spec() for _ in range(4)]
    for spec in specs:
        bench.start(spec)
        support.wait_for_body(spec)
    published = {spec.sandbox_id: ("127.0.0.1", spec.port) for spec in specs}
    assert bench.engine.find_unpublished(published) == set()
    (proxy,) = proxies_of(hanging.port)
    with undo_at_end(lambda: os.kill(proxy, signal.SIGCONT)):
        os.kill(proxy, signal.SIGSTOP)
        for pid in proxies_of(dead.port):
            os.kill(pid, signal.SIGKILL)
        docker_cli("kill", container_name(gone.sandbox_id))
        support.eventually(
            "the host sees which ports are dead",
            lambda: (
                bench.engine.find_unpublished(published) == {dead.sandbox_id, hanging.sandbox_id}
            ),
        )
    assert working.sandbox_id not in bench.engine.find_unpublished(published)
