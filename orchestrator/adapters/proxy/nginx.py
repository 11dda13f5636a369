"""ports.Proxy on nginx. The publish loop calls `publish`, health checks call `published`.

nginx reads the routes at each request (route_links.py). When `publish` returns, no request can be
routed by an earlier table. That takes three steps:

1. The links are those of the new table: whatever nginx begins to route from now on goes by it.
2. The control listener answers with the new digest: nginx reads these links, and may read them.
3. If a route was changed or withdrawn, each worker has ended a turn since, the handling of the
   events that it took together: none is between its look at a link and its connect to the app. One
   that sleeps has; one that is always busy is told to reopen its log, and says so there after its
   turn.

A publish that fails in between leaves the rest to the next one: the file `confirmed` is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator

from orchestrator import ports
from orchestrator.adapters.proxy import nginx_config, nginx_workers
from orchestrator.adapters.proxy.nginx_config import NginxSettings, write_base
from orchestrator.adapters.proxy.route_links import RouteLinks
from orchestrator.domain import errors
from orchestrator.domain.pool.routes import RouteTable

__all__ = ["NginxProxy", "NginxSettings", "write_base"]

_POLL_INTERVAL_S = 0.004
_BUSY_S = 0.1  # a worker that hasn't slept for so long is asked for a sign
_LOG_MAX_BYTES = 4 * 1024**2
_ANSWER_S = 1.0  # for the control listener, between two pieces of its answer
_ANSWER_MAX_BYTES = 4096
# Of version 1.0, so that the answer ends with its connection. http.client would take longer for it
# than nginx.
_CONTROL_REQUEST = b"GET /routes HTTP/1.0\r\nHost: control\r\n\r\n"


class NginxProxy:
    """One nginx on this machine and in this pid namespace. A supervisor starts it."""

    def __init__(self, settings: NginxSettings, term: ports.Term | None = None) -> None:
        """`term` is the caller's, if it is a leader: only the latest leader may publish."""
        self._settings = settings
        self._term = term
        self._folder = settings.folder
        self._links = RouteLinks(settings.folder)
        self._log_path = settings.folder / "error.log"

    def publish(self, table: RouteTable, *, afresh: bool = False) -> None:
        """Put this table in force, and return once no request can be routed by an earlier one.

        Do nothing if that is so already. `afresh`: read all links, whatever we remember. Takes at
        most `publish_deadline_s`. Raises errors.ProxyRejected (the table stays as it is),
        errors.ProxyUnavailable, errors.StorageUnavailable, errors.TermOver.
        """
        if afresh:
            self._links.forget()
        deadline = _Deadline(self._settings.publish_deadline_s)
        with errors.storage("publish the routes"), self._publish_lock(deadline):
            self._claim_term()
            master = nginx_workers.find_master(self._folder / "nginx.pid")
            confirmed = nginx_config.read_confirmed(self._folder)
            if confirmed == table.digest and self.published() == table.digest:
                return
            self._keep_log_small()
            self._check_term()
            nginx_config.withdraw_confirmation(self._folder)
            is_used = self._links.replace(table, confirmed) or confirmed is None
            self._links.seal(table.digest)
            self._await_answer(table.digest, deadline)
            if is_used:
                self._await_turns(master, deadline)
            nginx_config.confirm(self._folder, table.digest)

    def published(self) -> str | None:
        """Ask the running nginx for the digest of the table in force; None if it doesn't answer.

        "" while the links aren't those of the table that was published last.
        """
        status, body = self._query_control()
        if status != 200:
            return None
        return body if body == self._links.digest() else ""

    def _claim_term(self) -> None:
        """Write down that our term has begun to publish. Raises errors.TermOver if a later one has:
        then we were stopped for so long that another daemon leads."""
        if self._term is None:
            return
        self._check_term()
        latest = nginx_config.read_term(self._folder)
        if latest > self._term.number:
            raise errors.TermOver(
                f"the leader of term {latest} publishes, and this is term {self._term.number}"
            )
        if latest < self._term.number:
            nginx_config.write_term(self._folder, self._term.number)

    def _check_term(self) -> None:
        if self._term is not None:
            self._term.check()

    def _await_answer(self, digest: str, deadline: _Deadline) -> None:
        while True:
            status, body = self._query_control()
            if (status, body) == (200, digest):
                return
            if status == 503:
                awaited = f"nginx's workers to be able to read {self._folder}/routes"
            else:
                awaited = f"nginx to answer with routes {digest} (its answer: {body or 'none'})"
            deadline.pause(awaited)

    def _keep_log_small(self) -> None:
        """Empty nginx's log once it is long."""
        with contextlib.suppress(FileNotFoundError):
            if self._log_path.stat().st_size > _LOG_MAX_BYTES:
                os.truncate(self._log_path, 0)

    def _await_turns(self, master: nginx_workers.Process, deadline: _Deadline) -> None:
        """Wait until each worker has ended the turn in which it is now."""
        workers = nginx_workers.list_children(master)
        if not workers:
            raise errors.ProxyUnavailable(f"nginx (pid {master.pid}) has no workers")
        workers = _busy(workers)
        asks_at = time.monotonic() + _BUSY_S
        while workers and time.monotonic() < asks_at:
            deadline.pause(f"nginx's workers {_pids(workers)} to end their turns")
            workers = _busy(workers)
        if not workers:
            return
        log_size_bytes = self._log_path.stat().st_size
        for worker in workers:
            nginx_workers.ask_for_sign(worker)
        while workers:
            with self._log_path.open("rb") as file:
                file.seek(log_size_bytes)
                log = file.read()
            workers = [
                worker for worker in _busy(workers) if nginx_workers.sign_of(worker) not in log
            ]
            if workers:
                deadline.pause(f"nginx's workers {_pids(workers)} to end their turns")

    def _query_control(self) -> tuple[int, str]:
        """Return status and body from the control listener; status 0 if it doesn't answer."""
        address = ("127.0.0.1", self._settings.control_port)
        try:
            with socket.create_connection(address, timeout=_ANSWER_S) as connection:
                connection.sendall(_CONTROL_REQUEST)
                return _parse_answer(_read_all(connection))
        except (OSError, ValueError):
            return 0, ""

    @contextlib.contextmanager
    def _publish_lock(self, deadline: _Deadline) -> Iterator[None]:
        """Hold the lock that keeps publishers apart.

        For a moment two daemons may lead. Two publishers at once could confirm each other's table.
        """
        try:
            lock = nginx_config.open_lock(self._folder)
        except FileNotFoundError as error:
            raise errors.ProxyUnavailable(
                f"nginx was never set up in {self._folder}: start it first"
            ) from error
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    deadline.pause("another process to publish its table")
            yield
        finally:
            os.close(lock)


class _Deadline:
    """The time for one publish, shared by all its waits."""

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._ends_at = time.monotonic() + total_s

    @property
    def remaining_s(self) -> float:
        return max(0.01, self._ends_at - time.monotonic())

    def pause(self, awaited: str) -> None:
        """Sleep briefly. Raises errors.ProxyUnavailable after the deadline, naming `awaited`."""
        if time.monotonic() >= self._ends_at:
            raise errors.ProxyUnavailable(f"waited {self._total_s:g} s in vain for {awaited}")
        time.sleep(_POLL_INTERVAL_S)


def _busy(workers: list[nginx_workers.Process]) -> list[nginx_workers.Process]:
    return [worker for worker in workers if not nginx_workers.is_idle(worker)]


def _pids(workers: list[nginx_workers.Process]) -> str:
    return ", ".join(str(worker.pid) for worker in workers)


def _read_all(connection: socket.socket) -> bytes:
    """What comes until the connection ends, or as much as an answer may have."""
    answer = b""
    while len(answer) < _ANSWER_MAX_BYTES and (piece := connection.recv(_ANSWER_MAX_BYTES)):
        answer += piece
    return answer


def _parse_answer(answer: bytes) -> tuple[int, str]:
    """Status and body of an HTTP answer. Raises ValueError for anything else."""
    head, _, body = answer.partition(b"\r\n\r\n")
    version, status = head.split(maxsplit=2)[:2]
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"no answer of HTTP: {version!r}")
    return int(status), body[:100].decode("latin-1").strip()
