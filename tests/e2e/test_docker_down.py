"""Docker goes away and comes back: sessions wait, nothing fails, and /ready says why."""

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
    """A UNIX socket in front of Docker's own, which can be cut and joined again."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self._target = path, target
        self._listener: socket.socket | None = None
        self._links: set[socket.socket] = set()

    def join(self) -> None:
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
        for link in list(self._links):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            self._links |= {near, far}
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, closes: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not closes:
            self._links -= {source, sink}
            source.close()
            sink.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    folder = Path(tempfile.mkdtemp(prefix="spawn-relay-"))
    one = Relay(folder / "docker.sock", "/var/run/docker.sock")
    one.join()
    yield one
    one.cut()
    shutil.rmtree(folder)


def test_sessions_wait_for_docker_and_ready_says_why(relay: Relay) -> None:
    with installed(SPAWN_DOCKER_URL=f"unix://{relay.path}", SPAWN_WARM_TARGET="0") as spawn:
        relay.cut()

        def unready() -> str | None:
            said = spawn.call("GET", "/ready")
            return said.json["checks"]["docker"]["detail"] if said.status == 503 else None

        reason = until(unready, 30, "/ready to notice")
        assert "local" in reason

        waiting = spawn.create(template="todo")
        assert waiting["status"] == "queued"
        now = spawn.status(waiting["session_id"])
        assert (now["status"], now["queue_position"], now["attempt"]) == ("queued", 1, 1)

        relay.join()
        ready = spawn.wait_for(waiting["session_id"], "ready", "failed")
        assert (ready["status"], ready["attempt"]) == ("ready", 1), ready
        until(lambda: spawn.call("GET", "/ready").status == 200, 30, "/ready to be well again")
