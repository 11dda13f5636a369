"""The Proxy port on nginx. Called by the publish loop (publish) and by health checks (published).

A reload is confirmed in four steps, because each alone leaves a gap: (1) the control listener
answers with the new digest; (2) every worker of before is gone or titled "shutting down"; (3) the
older generations' files are removed, so that an old worker that still holds a connection (accepted
before the reload, its request not sent yet) passes the request on instead of routing it; (4) each
old worker was seen asleep once after that, so that none stands between that check and its connect.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.adapters.proxy import nginx_config, nginx_workers
from orchestrator.adapters.proxy.nginx_config import NginxSettings, write_base
from orchestrator.domain import errors
from orchestrator.domain.pool.routes import RouteTable

__all__ = ["NginxProxy", "NginxSettings", "write_base"]

_POLL_S = 0.004  # nginx itself waits 100 ms in a reload; finer only costs


class NginxProxy:
    """One nginx on this machine, in this pid namespace, started by a supervisor."""

    def __init__(self, settings: NginxSettings) -> None:
        self._settings = settings
        self._folder = settings.folder
        self._routes = settings.folder / "routes.conf"
        self._log = settings.folder / "error.log"

    def publish(self, table: RouteTable) -> None:
        """Make this table the one in force and return when no request can be routed by an earlier
        one any more; nothing to do when that is so already. Takes `reload_deadline_s` at most.
        Raises errors.ProxyRejected (the last good one stays in force), errors.ProxyUnavailable."""
        wait = _Deadline(self._settings.reload_deadline_s)
        with self._alone(wait):
            master = nginx_workers.master(self._folder / "nginx.pid")
            generations = nginx_config.generations(self._folder)
            if generations == {table.digest} and self.published() == table.digest:
                return
            text = nginx_config.render_routes(self._settings, table)
            self._validate(text, wait)
            old = nginx_workers.children(master)
            self._reload(master, old, table.digest, text, wait)
            nginx_config.withdraw(self._folder, generations - {table.digest})
            while busy := [worker for worker in old if not nginx_workers.rested(worker)]:
                wait.turn(f"nginx's old workers {_pids(busy)} to come to rest")

    def published(self) -> str | None:
        """Digest of the table in force, asked from the running nginx; None when it is away."""
        status, body = self._ask()
        return body if status == 200 else None

    def _validate(self, text: str, wait: _Deadline) -> None:
        """`nginx -t` on a copy that shares nothing with what runs, not even the listeners."""
        with tempfile.TemporaryDirectory(prefix="spawn-nginx-") as name:
            folder = Path(name)
            (folder / "temp").mkdir()
            (folder / "routes.conf").write_text(text, "utf-8")
            base = nginx_config.render_base(
                self._settings,
                open_files=2 * self._settings.worker_connections,
                temp_kinds=nginx_config.temp_kinds(self._settings.binary),
                folder=folder,
                listen=f"unix:{folder}/front",
                control=f"unix:{folder}/control",
            )
            (folder / "nginx.conf").write_text(base, "utf-8")
            command = [self._settings.binary, "-t", "-q", "-c", f"{folder}/nginx.conf"]
            try:
                test = subprocess.run(
                    command, check=False, capture_output=True, text=True, timeout=wait.left_s
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise errors.ProxyUnavailable(f"nginx can't check its routes: {error}") from error
        if test.returncode != 0:
            raise errors.ProxyRejected(f"nginx refused the routes: {test.stderr.strip()}")

    def _reload(
        self,
        master: nginx_workers.Process,
        old: list[nginx_workers.Process],
        digest: str,
        text: str,
        wait: _Deadline,
    ) -> None:
        """Swap the file, signal, and wait until only workers that read it accept."""
        before = self._routes.read_text("utf-8")
        known = nginx_config.generations(self._folder)
        log_bytes = self._log.stat().st_size if self._log.exists() else 0
        nginx_config.admit(self._folder, digest)
        nginx_config.write_atomically(self._routes, text)
        nginx_workers.send(master, signal.SIGHUP)
        while awaited := self._awaited(digest, old):
            if refusal := self._refusal(log_bytes):
                # nginx goes on with what it has; so shall its next start.
                nginx_config.write_atomically(self._routes, before)
                nginx_config.withdraw(self._folder, {digest} - known)
                raise errors.ProxyRejected(f"nginx did not reload: {refusal}")
            if not nginx_workers.alive(master):
                raise errors.ProxyUnavailable(f"nginx (pid {master.pid}) ended during a reload")
            wait.turn(awaited)

    def _awaited(self, digest: str, old: list[nginx_workers.Process]) -> str | None:
        """What is missing until the reload is done, for people; None when nothing is."""
        status, body = self._ask()
        if status == 503:
            return f"nginx's workers to be able to read {self._folder}/generations"
        if (status, body) != (200, digest):
            return f"nginx to answer with routes {digest} (it said: {body or 'nothing'})"
        accepting = [worker for worker in old if nginx_workers.accepts(worker)]
        return f"nginx's old workers {_pids(accepting)} to stop accepting" if accepting else None

    def _ask(self) -> tuple[int, str]:
        """Status and answer of the control listener; 0 when there is none."""
        connection = http.client.HTTPConnection(self._settings.control, timeout=1)
        try:
            connection.request("GET", "/routes")
            response = connection.getresponse()
            return response.status, response.read(100).decode("latin-1").strip()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def _refusal(self, log_bytes: int) -> str | None:
        """The first emergency that the master logged since its log had that size."""
        with contextlib.suppress(FileNotFoundError), self._log.open("rb") as log:
            log.seek(log_bytes)
            for line in log:
                if b"[emerg]" in line:
                    return line.decode("utf-8", "replace").strip()
        return None

    @contextlib.contextmanager
    def _alone(self, wait: _Deadline) -> Iterator[None]:
        """Leaders may overlap for a moment; two reloads at once could confirm each other's."""
        try:
            lock = nginx_config.open_lock(self._folder)
        except FileNotFoundError as error:
            raise errors.ProxyUnavailable(
                f"nginx was never set up in {self._folder}: start it first"
            ) from error
        with lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    wait.turn("another process to finish its reload")
            yield


class _Deadline:
    """Time for one publish, shared by all that it waits for."""

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._end = time.monotonic() + total_s

    @property
    def left_s(self) -> float:
        return max(0.01, self._end - time.monotonic())

    def turn(self, awaited: str) -> None:
        """Wait a little. Raises errors.ProxyUnavailable when the time is up."""
        if time.monotonic() >= self._end:
            raise errors.ProxyUnavailable(f"waited {self._total_s:g} s in vain for {awaited}")
        time.sleep(_POLL_S)


def _pids(workers: list[nginx_workers.Process]) -> str:
    return ", ".join(str(worker.pid) for worker in workers)
