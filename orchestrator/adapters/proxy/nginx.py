"""ports.Proxy on nginx. The publish loop calls `publish`, health checks call `published`.

When `publish` returns, no request can be routed by an earlier table. A reload of nginx alone does
not guarantee that, so a publish takes four steps. Each closes a gap that the one before leaves:

1. The control listener answers with the new digest: new workers route by the new table.
2. Every old worker has ended, or its title says "shutting down": no old worker accepts connections.
3. The older generations' files are removed. An old worker may still hold a connection that it
   accepted before the reload, and whose request comes later. Without the file of its generation it
   sends that request on to a current worker.
4. Each old worker has ended a turn since step 3, the handling of the events that it took together:
   none is between its check of the file and its connect to the app. One that sleeps has; one that
   is told to quit once more says so in the log, after its turn, however busy it is.

A publish that fails after step 3 leaves step 4 to the next one: the file `confirmed` is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator import ports
from orchestrator.adapters.proxy import nginx_config, nginx_workers
from orchestrator.adapters.proxy.nginx_config import NginxSettings, write_base
from orchestrator.domain import errors
from orchestrator.domain.pool.routes import RouteTable

__all__ = ["NginxProxy", "NginxSettings", "write_base"]

_POLL_INTERVAL_S = 0.004
# In a reload nginx itself waits so long before its old workers stop accepting. Whoever polls
# meanwhile learns nothing, and takes processor time from the containers that start just then.
_RELOAD_S = 0.1
_LOG_MAX_BYTES = 4 * 1024**2


class NginxProxy:
    """One nginx on this machine and in this pid namespace. A supervisor starts it."""

    def __init__(self, settings: NginxSettings, term: ports.Term | None = None) -> None:
        """`term` is the caller's, if it is a leader: only the latest leader may publish."""
        self._settings = settings
        self._term = term
        self._folder = settings.folder
        self._routes_path = settings.folder / "routes.conf"
        self._log_path = settings.folder / "error.log"

    def publish(self, table: RouteTable) -> None:
        """Put this table in force, and return once no request can be routed by an earlier one.

        Do nothing if that is so already. Takes at most `reload_deadline_s`. Raises
        errors.ProxyRejected (the last good table stays in force), errors.ProxyUnavailable,
        errors.StorageUnavailable, errors.TermOver.
        """
        deadline = _Deadline(self._settings.reload_deadline_s)
        with errors.storage("publish the routes"), self._publish_lock(deadline):
            self._claim_term()
            master = nginx_workers.find_master(self._folder / "nginx.pid")
            generations = nginx_config.list_generations(self._folder)
            in_force = generations == {table.digest} and self.published() == table.digest
            if in_force and nginx_config.read_confirmed(self._folder) == table.digest:
                return
            if not in_force:
                self._keep_log_small()
                text = nginx_config.render_routes(self._settings, table)
                self._validate(text, deadline)
                self._check_term()
                nginx_config.withdraw_confirmation(self._folder)
                self._reload(master, table.digest, text, deadline)
                self._check_term()
                nginx_config.withdraw_generations(self._folder, generations - {table.digest})
            self._await_turns(master, deadline)
            nginx_config.confirm(self._folder, table.digest)

    def published(self) -> str | None:
        """Ask the running nginx for the digest of the table in force; None if it doesn't answer."""
        status, body = self._query_control()
        return body if status == 200 else None

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

    def _validate(self, text: str, deadline: _Deadline) -> None:
        """Run `nginx -t` on a copy that shares no file and no socket with the running nginx."""
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
                result = subprocess.run(
                    command,
                    check=False,
                    capture_output=True,
                    text=True,
                    timeout=deadline.remaining_s,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise errors.ProxyUnavailable(f"nginx can't check its routes: {error}") from error
        if result.returncode != 0:
            raise errors.ProxyRejected(f"nginx refused the routes: {result.stderr.strip()}")

    def _reload(
        self,
        master: nginx_workers.Process,
        digest: str,
        text: str,
        deadline: _Deadline,
    ) -> None:
        """Replace routes.conf, signal nginx, and wait until only workers with the new table accept.

        Raises errors.ProxyRejected after restoring the old file, errors.ProxyUnavailable.
        """
        old_workers = nginx_workers.list_children(master)
        old_text = self._routes_path.read_text("utf-8")
        old_generations = nginx_config.list_generations(self._folder)
        log_size_bytes = self._log_path.stat().st_size if self._log_path.exists() else 0
        nginx_config.admit_generation(self._folder, digest)
        nginx_config.write_atomically(self._routes_path, text)
        nginx_workers.send_signal(master, signal.SIGHUP)
        time.sleep(min(_RELOAD_S, deadline.remaining_s))
        while awaited := self._unfinished_reload(digest, old_workers):
            if emergency := self._logged_emergency(log_size_bytes):
                # nginx keeps the table that it has. Restore the file, so that its next start
                # loads the same table.
                nginx_config.write_atomically(self._routes_path, old_text)
                nginx_config.withdraw_generations(self._folder, {digest} - old_generations)
                raise errors.ProxyRejected(f"nginx did not reload: {emergency}")
            if not nginx_workers.is_running(master):
                raise errors.ProxyUnavailable(f"nginx (pid {master.pid}) ended during a reload")
            deadline.pause(awaited)

    def _unfinished_reload(
        self, digest: str, old_workers: list[nginx_workers.Process]
    ) -> str | None:
        """Describe for people what the reload still waits for; None when it is complete."""
        status, body = self._query_control()
        if status == 503:
            return f"nginx's workers to be able to read {self._folder}/generations"
        if (status, body) != (200, digest):
            return f"nginx to answer with routes {digest} (its answer: {body or 'none'})"
        accepting = [worker for worker in old_workers if nginx_workers.may_accept(worker)]
        return f"nginx's old workers {_pids(accepting)} to stop accepting" if accepting else None

    def _keep_log_small(self) -> None:
        """Empty nginx's log once it is long: each reload adds two kilobytes."""
        with contextlib.suppress(FileNotFoundError):
            if self._log_path.stat().st_size > _LOG_MAX_BYTES:
                os.truncate(self._log_path, 0)

    def _await_turns(self, master: nginx_workers.Process, deadline: _Deadline) -> None:
        """Wait until each worker that shuts down has ended the turn in which it is now."""
        log_size_bytes = self._log_path.stat().st_size
        workers = nginx_workers.list_children(master)
        workers = [
            worker
            for worker in workers
            if not (nginx_workers.may_accept(worker) or nginx_workers.is_idle(worker))
        ]
        for worker in workers:
            nginx_workers.ask_to_quit(worker)
        while workers:
            with self._log_path.open("rb") as file:
                file.seek(log_size_bytes)
                log = file.read()
            workers = [
                worker
                for worker in workers
                if not nginx_workers.is_idle(worker) and nginx_workers.quit_line(worker) not in log
            ]
            if workers:
                deadline.pause(f"nginx's old workers {_pids(workers)} to end their turns")

    def _query_control(self) -> tuple[int, str]:
        """Return status and body from the control listener; status 0 if it doesn't answer."""
        connection = http.client.HTTPConnection(self._settings.control, timeout=1)
        try:
            connection.request("GET", "/routes")
            response = connection.getresponse()
            return response.status, response.read(100).decode("latin-1").strip()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def _logged_emergency(self, offset_bytes: int) -> str | None:
        """Return the first emergency that the master logged beyond this offset of its log."""
        with contextlib.suppress(FileNotFoundError), self._log_path.open("rb") as log:
            log.seek(offset_bytes)
            for line in log:
                if b"[emerg]" in line:
                    return line.decode("utf-8", "replace").strip()
        return None

    @contextlib.contextmanager
    def _publish_lock(self, deadline: _Deadline) -> Iterator[None]:
        """Hold the lock that keeps publishers apart.

        For a moment two daemons may lead. Two reloads at once could confirm each other's table.
        """
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
                    deadline.pause("another process to finish its reload")
            yield


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


def _pids(workers: list[nginx_workers.Process]) -> str:
    return ", ".join(str(worker.pid) for worker in workers)
