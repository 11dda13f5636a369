"""`spawnctl up`: starts the processes of one machine, keeps them alive, stops them in order.

Runs as a process of its own (`python -m orchestrator.entrypoints.supervisor`), small on
purpose: it imports nothing that its children need. SIGTERM and SIGINT stop everything and remove
the sandboxes; SIGUSR1 stops everything and leaves them running; a second signal forces.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.entrypoints import children as catalog
from orchestrator.entrypoints.children import Child

LOCK = "supervisor.lock"
READY = "supervisor.ready"
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD}
_BACKOFF_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 20.0
_TICK_S = 0.5
_ROTATE_S = 60.0
_LOG_MAX_BYTES = 20 * 1024**2
_ASK_AGAIN_S = 0.03
_PR_SET_PDEATHSIG = 1


@dataclass
class Slot:
    """A child's place: its process, and how often it died lately."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    restart_at: float = field(default=0.0)


class StartFailed(Exception):
    """A child did not become ready; the message names it and its log."""


def main() -> int:
    """Hold the lock, prepare, start, watch, stop."""
    settings = config.load()
    os.umask(0o077)  # what we and our children write is ours alone, unless somebody says otherwise
    settings.places.state_dir.mkdir(parents=True, exist_ok=True)
    with _lock(settings.places.state_dir / LOCK) as lock:
        if lock is None:
            print("SpawnAI is already running here", file=sys.stderr)
            return 1
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        supervisor = Supervisor(settings)
        try:
            supervisor.start()
            (settings.places.state_dir / READY).write_text(str(os.getpid()))
            keep_apps = supervisor.watch()
        except (StartFailed, OSError) as error:
            print(f"SpawnAI could not start: {error}", file=sys.stderr)
            supervisor.stop(keep_apps=True)
            return 1
        finally:
            (settings.places.state_dir / READY).unlink(missing_ok=True)
        supervisor.stop(keep_apps=keep_apps)
    return 0


class Supervisor:
    """Owns the children of one machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._logs = settings.places.state_dir / "log"
        self._slots: list[Slot] = []

    def start(self) -> None:
        """Start each child when those before it are ready. Raises StartFailed."""
        self._logs.mkdir(exist_ok=True)
        self._run_once("prepare", "orchestrator.entrypoints.prepare")
        for child in catalog.all_children(self._settings):
            slot = Slot(child=child)
            self._slots.append(slot)
            self._spawn(slot)
            self._await_ready(slot)

    def watch(self) -> bool:
        """Restart what dies, until told to stop. Whether the sandboxes are to be kept."""
        rotate_at = time.monotonic() + _ROTATE_S
        while True:
            info = signal.sigtimedwait(_SIGNALS, self._nap_s())
            if info is not None and info.si_signo != signal.SIGCHLD:
                return info.si_signo == signal.SIGUSR1
            now = time.monotonic()
            for slot in self._slots:
                self._revive(slot, now)
            if now >= rotate_at:
                rotate_at = now + _ROTATE_S
                self._rotate_logs()

    def stop(self, *, keep_apps: bool) -> None:
        """In the written order (children.STOP_ORDER); what doesn't end in its time is killed."""
        by_name = {slot.child.name: slot for slot in self._slots}
        forced = False
        for name in catalog.STOP_ORDER:
            if name in by_name:
                forced = self._end(by_name[name], forced=forced)
        if not keep_apps:
            with contextlib.suppress(StartFailed):
                self._run_once("sweep", "orchestrator.entrypoints.sweep")

    def _run_once(self, name: str, module: str) -> None:
        with self._log(name) as log:
            done = subprocess.run(
                [sys.executable, "-m", module],
                stdout=log,
                stderr=log,
                check=False,
                preexec_fn=_in_child,
            )
        if done.returncode != 0:
            raise StartFailed(f"{name} failed:\n{_tail(self._logs / f'{name}.log')}")

    def _spawn(self, slot: Slot) -> None:
        child = slot.child
        with self._log(child.name) as log:
            slot.process = subprocess.Popen(
                child.argv,
                env=catalog.environment(child, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its own group, so that its children die with it
                preexec_fn=_in_child,  # noqa: PLW1509 - this process has one thread
            )
        slot.started_at = time.monotonic()

    def _await_ready(self, slot: Slot) -> None:
        child, process = slot.child, slot.process
        assert process is not None
        ends = time.monotonic() + child.ready_within_s
        while not child.ready():
            if process.poll() is not None or time.monotonic() > ends:
                raise StartFailed(
                    f"{child.name} is not ready:\n{_tail(self._logs / f'{child.name}.log')}"
                )
            if self._told_to_stop():
                raise StartFailed("told to stop while starting")
            time.sleep(_ASK_AGAIN_S)

    def _told_to_stop(self) -> bool:
        waiting = signal.sigpending()
        return bool(waiting & (_SIGNALS - {signal.SIGCHLD}))

    def _revive(self, slot: Slot, now: float) -> None:
        process = slot.process
        if process is not None and process.poll() is not None:
            # What it forked may still hold its port or its queue: nginx's workers outlive it.
            _signal_group(process.pid, signal.SIGKILL)
            steady = now - slot.started_at > _STEADY_S
            slot.deaths = 1 if steady else slot.deaths + 1
            slot.restart_at = now + _BACKOFF_S[min(slot.deaths, len(_BACKOFF_S)) - 1]
            slot.process = None
            self._say(f"{slot.child.name} ended with {process.returncode}; starting it again")
        if slot.process is None and now >= slot.restart_at:
            self._spawn(slot)

    def _nap_s(self) -> float:
        due = [slot.restart_at for slot in self._slots if slot.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else _TICK_S

    def _end(self, slot: Slot, *, forced: bool) -> bool:
        process = slot.process
        if process is None:
            return forced
        if process.poll() is None:
            process.send_signal(signal.SIGKILL if forced else signal.SIGTERM)
            ends = time.monotonic() + slot.child.stop_within_s
            while process.poll() is None and time.monotonic() < ends:
                info = signal.sigtimedwait(_SIGNALS, _TICK_S)
                if info is not None and info.si_signo != signal.SIGCHLD:
                    forced = True
                    break
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        self._say(f"{slot.child.name} stopped")
        return forced

    def _rotate_logs(self) -> None:
        """Keep one older part of each log. All write by appending, so that emptying it is safe."""
        for path in (
            *self._logs.glob("*.log"),
            *self._settings.places.state_dir.glob("nginx/*.log"),
        ):
            if path.stat().st_size > _LOG_MAX_BYTES:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def _log(self, name: str) -> IO[bytes]:
        return (self._logs / f"{name}.log").open("ab")

    def _say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(f"{stamp} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _lock(path: Path) -> Generator[IO[str] | None]:
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
    """Between fork and exec: take signals again, and end when the supervisor is killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _tail(path: Path, lines: int = 15) -> str:
    try:
        text: Sequence[str] = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text[-lines:])


if __name__ == "__main__":
    raise SystemExit(main())
