"""A call over a socket has a deadline, beside the time-out of each read and write."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator.adapters.deadline_socket import DeadlineSocket


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[DeadlineSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with closing(DeadlineSocket.adopt(ours)) as adopted, theirs:
        yield adopted, theirs


Pair = tuple[DeadlineSocket, socket.socket]


def test_after_the_deadline_not_even_what_has_come_is_read(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"late")
    ours.begin_call(0)
    with pytest.raises(TimeoutError):
        ours.recv(4)
    with pytest.raises(TimeoutError), ours.makefile("rb") as file:
        file.read(4)
    with pytest.raises(TimeoutError):
        ours.sendall(b"late, too")
    with pytest.raises(TimeoutError):
        ours.send(b"late, too")


def test_a_read_ends_at_the_deadline_although_its_time_out_is_longer(pair: Pair) -> None:
    ours, _ = pair
    ours.begin_call(0.01)
    with pytest.raises(TimeoutError):
        ours.recv(1)
    assert ours.gettimeout() == 60


def test_each_call_has_a_time_of_its_own(pair: Pair) -> None:
    ours, theirs = pair
    ours.begin_call(0)
    ours.begin_call(60)
    theirs.sendall(b"on time")
    assert ours.recv(7) == b"on time"
    ours.begin_call(0)
    ours.begin_call(None)
    theirs.sendall(b"at last")
    assert ours.recv(7) == b"at last"


def test_the_time_out_of_a_read_still_counts(pair: Pair) -> None:
    ours, _ = pair
    ours.settimeout(0.01)
    ours.begin_call(None)
    with pytest.raises(TimeoutError):
        ours.recv(1)
    ours.begin_call(60)
    with pytest.raises(TimeoutError):
        ours.recv(1)
