"""Runs our own programs in forks of the supervisor, which has imported what several of them need.

A fork shares that memory until it writes to it, and starts without importing it again. A program
leaves the supervisor's frames by the exception `Forked`, and ends as any interpreter does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.slim import structlog

log = structlog.get_logger()

# What at least two programs import. None of them starts a thread or opens a connection by that.
_SHARED = (
    "orchestrator.bootstrap",
    "orchestrator.observability",
    "orchestrator.entrypoints.api.server",
    "orchestrator.entrypoints.api.agents.server",
)
_ARGUMENTS_START, _ARGUMENTS_END = 47, 48  # fields of /proc/PID/stat, counted from 0; see proc(5)


class Forked(BaseException):
    """Raised in a fork, so that it leaves the supervisor's frames. Its `run` is the program."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        super().__init__(module)
        self._module = module
        self._arguments = arguments

    def run(self) -> int:
        """Run the program to its end. Returns its exit status.

        An error that we raise on purpose ends it with one line: the database is away, for example.
        The supervisor starts it again.
        """
        sys.argv = [self._module, *self._arguments]
        _rename(["python", "-m", *sys.argv])
        try:
            importlib.import_module(self._module).main()
        except errors.SpawnError as error:
            log.error("process_gave_up", code=error.code, error=str(error))
            return 1
        return 0


class ForkedProcess:
    """A fork, as its parent sees it: the part of subprocess.Popen that the supervisor uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, -N after signal N. None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def preload() -> None:
    """Load what forks share. The collector never looks at it again, which would copy it.

    Raises errors.InvalidInput if a template is broken.
    """
    for module in _SHARED:
        importlib.import_module(module)
    sys.modules["orchestrator.bootstrap"].read_catalog()
    gc.collect()
    gc.freeze()


def start(
    module: str, arguments: Sequence[str], log: int, in_child: Callable[[], None]
) -> ForkedProcess:
    """Start a program in a session of its own. `log` is the descriptor for what it prints.
    `in_child` runs before it.

    Raises OSError, and in the fork Forked.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return ForkedProcess(pid)
    try:
        os.setsid()
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        in_child()
    except BaseException:  # noqa: BLE001 - the supervisor's own frames must not see it
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    raise Forked(module, arguments)


def _rename(words: Sequence[str]) -> None:
    """Show these words as our command line, over those of the supervisor: `ps` shows them."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start = int(fields[_ARGUMENTS_START - 2])
    size = int(fields[_ARGUMENTS_END - 2]) - start
    line = b"\0".join(os.fsencode(word) for word in words)[: size - 1]
    ctypes.memmove(start, line.ljust(size, b"\0"), size)
