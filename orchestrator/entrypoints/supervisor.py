"""The supervisor starts the processes of one machine, restarts those that die, and stops them in
order. `spawnctl up` starts it as `python -m orchestrator.entrypoints.supervisor`.

Our own programs run in forks of it, and share the memory of what it has imported for them.
SIGTERM and SIGINT stop everything and remove the sandboxes. SIGUSR1 stops everything and keeps the
sandboxes. A second signal forces.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from orchestrator import config
from orchestrator.adapters.files.state_folder import SUPERVISOR_LOCK
from orchestrator.config import Settings
from orchestrator.entrypoints import descriptors, forks, provider_keys
from orchestrator.entrypoints.child_logs import ChildLogs
from orchestrator.entrypoints.children import (
    STANDBY_FILE,
    STOP_ORDER,
    Child,
    all_children,
    standby,
)
from orchestrator.entrypoints.liveness import exits, hangs, heartbeats
from orchestrator.entrypoints.liveness.heartbeats import HeartbeatSocket
from orchestrator.entrypoints.liveness.processes import Hung, ProcessWatch

LOCK = SUPERVISOR_LOCK
READY = "supervisor.ready"
HEARTBEATS = "heartbeat.sock"
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD}
_BACKOFF_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)  # before the first restart, the second, ...
_STEADY_S = 20.0  # a child that ran for longer starts again at the first backoff
_TICK_S = 1.0  # between looks at all processes; signals, and the end of one, are noticed at once
_ROTATE_S = 10.0  # strangers cause lines in the proxy's log of apps, some for each app
_READY_POLL_S = 0.03
_PR_SET_PDEATHSIG = 1


@dataclass
class SupervisedChild:
    """A child, its process, and how often it died in a row."""

    child: Child
    process: subprocess.Popen[bytes] | forks.ForkedProcess | None = None
    started_at: float = 0.0
    deaths: int = 0
    restart_at: float = field(default=0.0)


class StartFailed(Exception):
    """A child did not become ready. The message names it and shows the end of its log."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status  # of the supervisor then


def main() -> int:
    """Supervise, or run the program of a fork. Returns the exit status."""
    keys = provider_keys.set_aside()
    try:
        return _supervise(keys)
    except forks.Forked as fork:
        return fork.run()


def _supervise(keys: int) -> int:
    """Take the lock, then prepare, start, watch and stop."""
    settings = config.load()
    descriptors.raise_limit()
    os.umask(0o077)  # by default, only our user reads the files that we and our children write
    settings.places.state_dir.mkdir(parents=True, exist_ok=True)
    with _lock(settings.places.state_dir / LOCK) as lock:
        if lock is None:
            print("SpawnAI is already running here", file=sys.stderr)
            return 1
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            supervisor = Supervisor(settings, keys)
        except OSError as error:
            print(f"SpawnAI could not start: {error}", file=sys.stderr)
            return 1
        try:
            supervisor.start()
            (settings.places.state_dir / READY).write_text(str(os.getpid()))
            keep_apps = supervisor.watch()
        except (StartFailed, OSError) as error:
            print(f"SpawnAI could not start: {error}", file=sys.stderr)
            supervisor.stop(keep_apps=True)
            return error.status if isinstance(error, StartFailed) else 1
        supervisor.stop(keep_apps=keep_apps)
    return 0


class Supervisor:
    """Starts, watches and stops the children of one machine."""

    def __init__(self, settings: Settings, keys: int) -> None:
        """`keys` is the file of the providers' keys.

        Raises OSError if the socket of the heartbeats can't be made.
        """
        self._settings = settings
        self._keys = keys
        self._logs = ChildLogs(settings.places.state_dir)
        self._supervised: list[SupervisedChild] = []
        self._is_standby = False
        self._must_stand_by = False
        self._heartbeats = HeartbeatSocket(settings.places.state_dir / HEARTBEATS)
        self._watch = ProcessWatch(self._heartbeats, settings.processes.hang_limit_s)

    def start(self) -> None:
        """Start the children one by one, each when the previous one is ready. Raises StartFailed,
        and FileNotFoundError for a program that is not installed."""
        self._logs.prepare()
        prepared = self._run_once("prepare", "orchestrator.entrypoints.prepare")
        self._start_all(prepared == exits.STANDBY)

    def _start_all(self, is_standby: bool) -> None:
        """Start our children; as a standby, the one that says so."""
        self._is_standby = is_standby
        (self._settings.places.state_dir / STANDBY_FILE).unlink(missing_ok=True)
        if is_standby:
            self._print("another control plane uses our database: this one is a standby")
        else:
            forks.preload()
        children = [standby(self._settings)] if is_standby else all_children(self._settings)
        for child in children:
            supervised = SupervisedChild(child=child)
            self._supervised.append(supervised)
            self._spawn(supervised)
            self._wait_until_ready(supervised)

    def watch(self) -> bool:
        """Restart children that die, and end those that hang, until a signal to stop. Returns
        whether to keep the sandboxes."""
        rotate_at = time.monotonic() + _ROTATE_S
        while True:
            info = signal.sigtimedwait(_SIGNALS, self._wait_s())
            if info is not None and info.si_signo != signal.SIGCHLD:
                return info.si_signo == signal.SIGUSR1
            now = time.monotonic()
            for hung in self._watch.look(now):
                self._end_hung(hung)
            for supervised in self._supervised:
                self._restart_if_dead(supervised, now)
            if self._must_stand_by and self._stand_by():
                return True
            if now >= rotate_at:
                rotate_at = now + _ROTATE_S
                for complaint in self._logs.rotate():
                    self._print(complaint)

    def stop(self, *, keep_apps: bool) -> None:
        """Stop the children in the order of children.STOP_ORDER. A child that exceeds its time is
        killed. Remove the sandboxes afterwards, unless they are kept."""
        self._delete(READY)
        self._stop_all()
        self._watch.close()
        self._delete(STANDBY_FILE)
        if not (keep_apps or self._is_standby):  # they are not ours to remove then
            with contextlib.suppress(StartFailed):
                self._run_once("sweep", "orchestrator.entrypoints.sweep")

    def _delete(self, name: str) -> None:
        with contextlib.suppress(OSError):  # a disk that takes no writes must not keep us here
            (self._settings.places.state_dir / name).unlink(missing_ok=True)

    def _stop_all(self) -> bool:
        """Stop all children in order. Returns whether another signal has arrived meanwhile."""
        by_name = {supervised.child.name: supervised for supervised in self._supervised}
        forced = False
        for name in STOP_ORDER:
            if name in by_name:
                forced = self._stop_child(by_name[name], forced=forced)
                self._watch.end(name)
        self._supervised.clear()
        return forced

    def _stand_by(self) -> bool:
        """Replace all children by a standby: our daemon has found that another control plane leads.
        Returns whether to stop: a signal has arrived meanwhile. Raises StartFailed."""
        self._must_stand_by, self._is_standby = False, True
        if self._stop_all():
            return True
        self._start_all(is_standby=True)
        return False

    def _run_once(self, name: str, module: str) -> int:
        """Run it to its end. Returns 0, or exits.STANDBY. Raises StartFailed for any other end."""
        with self._logs.open(name) as log:
            start = log.tell()
            result = subprocess.run(
                [sys.executable, "-m", module],
                stdout=log,
                stderr=log,
                check=False,
                preexec_fn=_in_child,
            )
        if result.returncode not in {0, exits.STANDBY}:
            status = exits.UNUSABLE if result.returncode == exits.UNUSABLE else 1
            raise StartFailed(self._logs.tail(name, start) or f"{name} failed", status)
        return result.returncode

    def _spawn(self, supervised: SupervisedChild) -> None:
        child = supervised.child
        with self._logs.open(child.log or child.name) as log:
            if child.module:
                supervised.process = self._fork(child, log)
            else:
                supervised.process = subprocess.Popen(
                    child.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # its own group, so that we can kill its children too
                    preexec_fn=_in_child,  # noqa: PLW1509 - this process has one thread
                )
        supervised.started_at = time.monotonic()
        self._watch.begin(child, supervised.process.pid, supervised.started_at)

    def _fork(self, child: Child, log: IO[bytes]) -> forks.ForkedProcess:
        def prepare() -> None:
            _in_child()
            if child.needs_key:
                os.environ.update(provider_keys.read(self._keys))
            os.close(self._keys)
            os.environ[heartbeats.VARIABLE] = str(self._heartbeats.path)
            self._heartbeats.release()

        return forks.start(child.module, child.arguments, log.fileno(), prepare)

    def _wait_until_ready(self, supervised: SupervisedChild) -> None:
        child, process = supervised.child, supervised.process
        assert process is not None
        deadline = time.monotonic() + child.ready_within_s
        while not child.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                log = self._logs.tail(child.log or child.name)
                raise StartFailed(f"{child.name} is not ready:\n{log}")
            if self._is_told_to_stop():
                raise StartFailed("a signal stopped the start")
            time.sleep(_READY_POLL_S)

    def _is_told_to_stop(self) -> bool:
        return bool(signal.sigpending() & (_SIGNALS - {signal.SIGCHLD}))

    def _restart_if_dead(self, supervised: SupervisedChild, now: float) -> None:
        process = supervised.process
        if process is not None and process.poll() is not None:
            # Processes that it forked may still hold its port or its queue, as nginx's workers do.
            _signal_group(process.pid, signal.SIGKILL)
            was_steady = now - supervised.started_at > _STEADY_S
            supervised.deaths = 1 if was_steady else supervised.deaths + 1
            supervised.restart_at = now + _backoff_s(supervised.deaths)
            supervised.process = None
            name, status = supervised.child.name, process.returncode
            self._watch.end(name)
            reason = exits.REASONS.get(status or 0, "")
            self._print(f"{name} ended with {status}{reason and f' ({reason})'}; restarting it")
            self._must_stand_by = self._must_stand_by or status == exits.STANDBY
            if status == exits.STUCK:
                self._record_hang(name, f"{reason}; see loop_stuck in its log")
        if supervised.process is None and now >= supervised.restart_at:
            try:
                self._spawn(supervised)
            except (OSError, subprocess.SubprocessError) as error:
                # No process or no memory left, or the program is being replaced: try again.
                supervised.deaths += 1
                supervised.restart_at = now + _backoff_s(supervised.deaths)
                self._print(f"{supervised.child.name} could not be started: {error}")

    def _end_hung(self, hung: Hung) -> None:
        """Kill a process that gives no sign of life. A child is restarted then; one of a child's
        own processes is replaced by that child."""
        reason = f"no sign of life for {hung.silence_s:.0f} s"
        self._print(f"{hung.name} (process {hung.pid}): {reason}; killing it")
        if hung.is_child:
            _signal_group(hung.pid, signal.SIGKILL)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hung.pid, signal.SIGKILL)
        self._record_hang(hung.name, reason)

    def _record_hang(self, name: str, reason: str) -> None:
        try:
            hangs.record(self._settings.places.state_dir, name, reason, datetime.now(UTC))
        except OSError as error:  # on a full disk
            self._print(f"the hang of {name} could not be recorded: {error}")

    def _wait_s(self) -> float:
        """Seconds until the next restart is due, at most a tick."""
        due = [
            supervised.restart_at for supervised in self._supervised if supervised.process is None
        ]
        return min(_TICK_S, max(0.0, min(due) - time.monotonic())) if due else _TICK_S

    def _stop_child(self, supervised: SupervisedChild, *, forced: bool) -> bool:
        """Stop one child: kill it at once if `forced`. Returns whether to kill the next ones too:
        another signal has arrived."""
        process = supervised.process
        if process is None:
            return forced
        if process.poll() is None:
            process.send_signal(signal.SIGKILL if forced else signal.SIGTERM)
            deadline = time.monotonic() + supervised.child.stop_within_s
            while process.poll() is None and time.monotonic() < deadline:
                info = signal.sigtimedwait(_SIGNALS, _TICK_S)
                if info is not None and info.si_signo != signal.SIGCHLD:
                    forced = True
                    break
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        self._print(f"{supervised.child.name} stopped")
        return forced

    def _print(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError):  # our log may lie on a full disk
            print(f"{stamp} {text}", file=sys.stderr, flush=True)


def _backoff_s(deaths: int) -> float:
    return _BACKOFF_S[min(deaths, len(_BACKOFF_S)) - 1]


@contextlib.contextmanager
def _lock(path: Path) -> Generator[IO[str] | None]:
    """Lock the file and write our process number to it. Yields None if it is locked already."""
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


_libc = ctypes.CDLL(None, use_errno=True)


def _in_child() -> None:
    """Runs in the child between fork and exec: unblock signals, and ask the kernel for a SIGTERM
    when the supervisor dies."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


if __name__ == "__main__":
    raise SystemExit(main())
