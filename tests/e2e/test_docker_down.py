"""Docker stops and starts again: sessions wait, nothing fails, and /ready tells the reason."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import installed, until


class Relay:
    """A UNIX socket in front of Docker's own. A test can cut it and open it again."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self._target = path, target
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()

    def open(self) -> None:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.path.unlink(missing_ok=True)
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            docker = socket.socket(socket.AF_UNIX)
            docker.connect(self._target)
            self._connections |= {client, docker}
            threading.Thread(target=self._copy, args=(client, docker, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(docker, client, False), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not is_request:
            self._connections -= {source, sink}
            source.close()
            sink.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    folder = Path(tempfile.mkdtemp(prefix="spawn-relay-"))
    relay = Relay(folder / "docker.sock", "/var/run/docker.sock")
    relay.open()
    yield relay
    relay.cut()
    shutil.rmtree(folder)


def test_sessions_wait_for_docker_and_ready_tells_the_reason(relay: Relay) -> None:
    with installed(SPAWN_DOCKER_URL=f"unix://{relay.path}", SPAWN_WARM_TARGET="0") as spawn:
        relay.cut()

        def reason_of_503() -> str | None:
            response = spawn.call("GET", "/ready")
            is_ready = response.status != 503
            return None if is_ready else response.json["checks"]["docker"]["detail"]

        reason = until(reason_of_503, 30, "/ready to notice")
        assert "local" in reason

        waiting = spawn.create(template="todo")
        assert waiting["status"] == "queued"
        status = spawn.status(waiting["session_id"])
        assert (status["status"], status["queue_position"], status["attempt"]) == ("queued", 1, 1)

        relay.open()
        ready = spawn.wait_for(waiting["session_id"], "ready", "failed")
        assert (ready["status"], ready["attempt"]) == ("ready", 1), ready
        until(lambda: spawn.call("GET", "/ready").status == 200, 30, "/ready to be 200 again")
