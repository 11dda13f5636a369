"""ports.Events over the sockets of those who listen.

Publishing never fails and never waits. A wake-up is lost if its listener is not there, or is so
slow that its socket is full: then it hears with the next one that it has missed some.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from orchestrator.adapters.events import wire
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.ports import topics
from orchestrator.slim import structlog

_IDLE_TIMEOUT_S = 1.0
_READ_BYTES = 65536

log = structlog.get_logger()


class SocketEvents:
    """The wake-ups of one process. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._listeners: dict[tuple[str, int], _Listener] = {}  # by the socket's name and inode

    def session_changed(self, session_id: SessionId) -> None:
        self._publish(topics.SESSION, session_id)

    def session_due(self, session_id: SessionId) -> None:
        self._publish(topics.DUE, session_id)

    def walk_wanted(self, session_id: SessionId) -> None:
        self._publish(topics.WALK, session_id)

    def inbox_changed(self, sandbox_id: SandboxId) -> None:
        self._publish(topics.INBOX, sandbox_id)

    def routes_changed(self) -> None:
        self._publish(topics.ROUTES)

    def app_switched(self) -> None:
        self._publish(topics.SWITCHES)

    def pool_changed(self) -> None:
        self._publish(topics.POOL)

    def hosts_changed(self) -> None:
        self._publish(topics.HOSTS)

    @contextlib.contextmanager
    def subscribe(self, name: str, kinds: Sequence[str]) -> Generator[Iterator[str]]:
        ear = _Ear(self._folder, name, kinds)
        try:
            yield ear.hear()
        finally:
            ear.close()

    def close(self) -> None:
        """Close the connections. A later event opens new ones."""
        with self._lock:
            for key in list(self._listeners):
                self._listeners.pop(key).close()

    def _publish(self, kind: str, subject: str = "") -> None:
        topic = topics.topic_of(kind, subject) if subject else kind
        with self._lock, contextlib.suppress(OSError):
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for listener in self._present(folder):
                    if wire.listens_to(listener.file_name, kind):
                        listener.send(folder, topic)
            finally:
                os.close(folder)

    def _present(self, folder: int) -> Sequence[_Listener]:
        """Those whose sockets are in the folder. Forgets all others."""
        with os.scandir(folder) as entries:
            names = {(entry.name, entry.inode()) for entry in entries}
        for key in self._listeners.keys() - names:
            self._listeners.pop(key).close()
        for key in names - self._listeners.keys():
            self._listeners[key] = _Listener(key[0])
        return list(self._listeners.values())


class _Listener:
    """The sender's end of one listener."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self._socket: socket.socket | None = None
        self._has_missed = False

    def send(self, folder: int, topic: str) -> None:
        line = wire.encode(topic, has_missed=self._has_missed)
        self._has_missed = True
        try:
            if self._socket is None:
                self._socket = self._connect(folder)
            is_whole = self._socket.send(line) == len(line)
        except BlockingIOError:
            return  # it is full: the listener hangs, or is slow
        except OSError:
            is_whole = False  # the listener has ended
        if is_whole:
            self._has_missed = False
        else:
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, folder: int) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # This path is short, whatever the folder's is.
            connection.connect(f"/proc/self/fd/{folder}/{self.file_name}")
        except BaseException:
            connection.close()
            raise
        return connection


class _Ear:
    """The listener's end, for one thread that waits."""

    def __init__(self, folder: Path, name: str, kinds: Sequence[str]) -> None:
        self._folder = folder
        self._name = name
        self._kinds = kinds
        self._selector = selectors.DefaultSelector()
        self._listening: socket.socket | None = None
        self._bind()

    def hear(self) -> Iterator[str]:
        """Yield each topic. After a loss, yield all kinds; "" when idle."""
        while True:
            if self._listening is None:
                self._bind()
            ready = self._selector.select(_IDLE_TIMEOUT_S)
            if not ready:
                yield ""
            for key, _ in ready:
                if key.fileobj is self._listening:
                    self._accept(self._listening)
                elif isinstance(key.fileobj, socket.socket):
                    yield from self._read(key.fileobj, key.data)

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _bind(self) -> None:
        try:
            self._listening = wire.bind(self._folder, self._name, self._kinds)
        except OSError as error:  # a full disk, for example
            log.warning("wake_ups_not_heard", error=str(error))
            return
        self._selector.register(self._listening, selectors.EVENT_READ)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, wire.Decoder())

    def _read(self, connection: socket.socket, decoder: wire.Decoder) -> Iterator[str]:
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            connection.close()
            return
        for topic in decoder.feed(data):
            if topic == wire.MISSED:
                yield from self._kinds
            else:
                yield topic
