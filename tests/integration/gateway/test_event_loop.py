"""A writer that keeps the database busy delays who writes, and nobody else."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace

from orchestrator.domain.sessions.session import Wanted
from tests.integration.gateway.world import GatewayWorld


class UnixConnection(http.client.HTTPConnection):
    """A connection to the agent socket, of which a test reads the answer later."""

    def __init__(self, path: str) -> None:
        super().__init__("home", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)

    @property
    def has_answer(self) -> bool:
        assert self.sock is not None
        return bool(select.select([self.sock], [], [], 0)[0])


@contextlib.contextmanager
def busy_database(world: GatewayWorld) -> Iterator[None]:
    """Another process writes until the block ends."""
    path = world.context.settings.places.state_dir / "store.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield


def test_a_refusal_that_is_written_down_holds_up_nobody_else(
    served: Callable[..., GatewayWorld],
) -> None:
    world = served()
    session = world.session()
    token = world.token(session)
    world.deps.store.sessions.save(replace(session, wanted=Wanted.GONE))
    refused, other = UnixConnection(str(world.socket)), UnixConnection(str(world.socket))
    with busy_database(world):
        refused.request("POST", "/v1/messages", body=b"{}", headers={"x-api-key": token})
        other.request("GET", "/agent/inbox")
        assert other.getresponse().status == 401
        assert not refused.has_answer, "the loop stood still until the refusal gave up"
    assert refused.getresponse().status == 403
    assert len(world.deps.store.audit.list()) == 1
    refused.close()
    other.close()
