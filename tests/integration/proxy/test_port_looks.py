"""A look at a published port tells one that is open from one that refuses and one that hangs."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.proxy.port_looks import TcpPortLooks
from orchestrator.domain.pool.published_ports import Endpoint, PortAnswer


@contextlib.contextmanager
def listening(address: str = "127.0.0.1", backlog: int = 8) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen(backlog)
        yield listener


def endpoint_of(listener: socket.socket) -> Endpoint:
    address, port = listener.getsockname()[:2]
    return address, port


@pytest.fixture
def refusing() -> Iterator[Endpoint]:
    """A port that is taken, and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield endpoint_of(taken)


@contextlib.contextmanager
def full() -> Iterator[Endpoint]:
    """A listener whose queue is full: the kernel drops what else wants to connect."""
    with listening(backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            guest = stack.enter_context(socket.socket())
            guest.setblocking(False)
            guest.connect_ex(endpoint_of(listener))
        yield endpoint_of(listener)


def test_each_port_gets_its_own_answer(refusing: Endpoint) -> None:
    with listening() as four, listening("::1") as six, full() as hanging:
        looks = [endpoint_of(four), endpoint_of(six), refusing, hanging]
        assert TcpPortLooks().look(looks) == {
            endpoint_of(four): PortAnswer.OPEN,
            endpoint_of(six): PortAnswer.OPEN,
            refusing: PortAnswer.REFUSED,
            hanging: PortAnswer.SILENT,
        }


def test_more_ports_than_are_looked_at_together_all_get_an_answer() -> None:
    with listening(backlog=1000) as listener:
        port = endpoint_of(listener)[1]
        looks = [(f"127.0.{net}.{number}", port) for net in (0, 1) for number in range(1, 201)]
        answers = TcpPortLooks().look(looks)
    assert answers.keys() == set(looks)
    assert answers["127.0.0.1", port] is PortAnswer.OPEN
    assert answers["127.0.1.200", port] is PortAnswer.REFUSED


def test_nothing_is_sent_to_the_app() -> None:
    with listening() as listener:
        TcpPortLooks().look([endpoint_of(listener)])
        listener.settimeout(10)
        guest, _ = listener.accept()
        with guest:
            guest.settimeout(10)
            with pytest.raises(ConnectionResetError):
                guest.recv(1)


def test_a_want_of_our_own_is_no_answer() -> None:
    with listening() as listener:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, limits[1]))
        spare = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    spare.append(socket.socket())
            spare.pop().close()  # for the selector
            assert TcpPortLooks().look([endpoint_of(listener)]) == {}
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for connection in spare:
                connection.close()
