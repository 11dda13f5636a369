"""A real Redis that a test can stop, and a proxy before it that can lose connections silently."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.redis import connection
from tests.e2e.installation import free_ports, until

_DEADLINE_S = 20


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """One server, on a port of this machine."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def hang(self) -> None:
        """Answer nothing; connections stay open, and the kernel still accepts new ones."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def behind_a_black_hole(self) -> Iterator[None]:
        """Drop every packet from and to it: nothing is refused, nothing is closed. Needs root."""
        rules = [
            ("INPUT", "-i", "lo", "-p", "tcp", end, str(self.port), "-j", "DROP")
            for end in ("--dport", "--sport")
        ]
        with contextlib.ExitStack() as undo:
            for rule in rules:
                _as_root("iptables", "--wait", "-I", *rule)
                undo.callback(_as_root, "iptables", "--wait", "-D", *rule)
            yield


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    (port,) = free_ports(1)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as process:
        server = RedisServer(port=port, pid=process.pid)
        try:
            until(lambda: _answers(server), _DEADLINE_S, "redis-server to answer")
            yield server
        finally:
            server.go_on()
            process.terminate()


def _as_root(*argv: str) -> None:
    command = list(argv) if os.geteuid() == 0 else ["sudo", "-n", *argv]
    subprocess.run(command, check=True, timeout=_DEADLINE_S)


def _answers(server: RedisServer) -> bool:
    with contextlib.closing(connection.connect(server.url)) as client:
        try:
            return bool(client.ping())
        except connection.redis.RedisError:
            return False


@dataclass
class Proxy:
    """Forwards to a Redis. `cut` makes the present connections silent; later ones work."""

    target_port: int
    port: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _cut: list[threading.Event] = field(default_factory=list)  # one per connection
    _sockets: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def connections(self) -> int:
        return len(self._cut)

    def cut(self) -> None:
        for event in self._cut:
            event.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            accepting = threading.Thread(target=self._accept, args=[listener], daemon=True)
            accepting.start()
            try:
                yield self
            finally:
                self._stopping.set()
                accepting.join(_DEADLINE_S)
                for open_socket in self._sockets:
                    open_socket.close()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            if not select.select([listener], [], [], 0.1)[0]:
                continue
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target_port))
            self._sockets += [client, server]
            cut = threading.Event()
            self._cut.append(cut)
            threading.Thread(target=self._forward, args=[client, server, cut], daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        other = {client: server, server: client}
        with contextlib.suppress(OSError, ValueError):
            while not self._stopping.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.1)
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        client.close()
                        server.close()
                        return
                    if not cut.is_set():
                        other[source].sendall(data)
