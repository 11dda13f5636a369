"""One child process with its own session: the app, a command, or the generator.

Used by `app.py`, `commands.py` and `generation.py`. Apps and commands are code that nobody has
read: they run behind a Fence, and `stop` ends all their processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from agent.apps import processes
from agent.apps.feed import Feed
from agent.apps.loglines import Admission, LineSplitter, OutputMeter
from orchestrator.contract.wire import LOG_LINE_MAX_CHARS

READ_BYTES = 64 * 1024
SKIPPED_BYTES = 16 * 1024
SKIPPED_LINES = 200
"""Of the output of a second that is too much to look at: its end is handed on."""
TERM_GRACE_S = 0.2
"""Short, because nothing in a sandbox survives it: more would only delay the container's stop."""
CHUNKS_AFTER_EXIT = 16
"""As much as the largest pipe that a child can make of ours holds (1 MiB)."""
KILL_LIMIT_S = 5.0
KILL_PAUSE_S = 0.01
MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Fence:
    """Limits that the kernel applies to a child and to its children, to each process by itself.

    The container limits what all of them use together, and how many there are.
    """

    data_bytes: int = 640 * MIB  # RLIMIT_DATA; RLIMIT_AS would stop Node, which reserves gigabytes
    file_bytes: int = 64 * MIB  # RLIMIT_FSIZE
    oom_score: int = 1000  # the highest: when memory runs out, it is killed before the agent

    def command(self, command: Sequence[str]) -> list[str]:
        """The argv that runs `command` behind this fence."""
        # A shell and not preexec_fn, which is unsafe beside threads. 512-byte blocks and KiB.
        script = (
            f"echo {self.oom_score} >/proc/self/oom_score_adj;"
            f" ulimit -c 0;"
            f" ulimit -f {self.file_bytes // 512}; ulimit -d {self.data_bytes // 1024};"
            ' exec "$@"'
        )
        return ["/bin/sh", "-c", script, "sh", *command]


class Child:
    """Runs from construction until `stop`. `exited` resolves to the exit status (-N: signal N)."""

    leaders: ClassVar[set[int]] = set()
    """Pids of all children that run now. A process outside their sessions is a stray."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: str,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        fence: Fence | None = None,
        line_max_chars: int = LOG_LINE_MAX_CHARS,
        is_trusted: bool = False,
        has_order: bool = True,
    ) -> None:
        """Start the program. Raises OSError if that fails, whatever the command is.

        `is_trusted` is for our own generator: it shares our standard error, all of its output is
        read, and `write` reaches its standard input. `has_order`: false for a program that waits
        on its standard input for what `order` sends.
        """
        self._loop = asyncio.get_running_loop()
        self._on_line = on_line
        self._splitter = LineSplitter(max_chars=line_max_chars)
        self._meter = None if is_trusted else OutputMeter()
        self._skipped = b""  # the end of what came since it was too much
        self._skipped_bytes = 0
        self.exited: asyncio.Future[int] = self._loop.create_future()
        argv = command if fence is None else fence.command(command)
        self._output_fd, input_fd = self._launch(argv, folder, environment, is_trusted=is_trusted)
        self._input = Feed(input_fd)
        if not is_trusted and has_order:
            self._input.close()
        os.set_blocking(self._output_fd, False)
        self._loop.add_reader(self._output_fd, self._read_output)

    def write(self, data: bytes) -> None:
        """Send to standard input. What doesn't fit into the pipe now is sent later."""
        self._input.write(data)

    def order(self, order: bytes, on_line: Callable[[str], None]) -> None:
        """Tell it what to do, all that it gets. From now on its lines go to `on_line`."""
        self._on_line = on_line
        self._input.finish(order)

    def pids(self) -> set[int]:
        """Its processes, but for those that left its session."""
        return processes.in_session(processes.snapshot(), self._process.pid)

    async def stop(self) -> None:
        """End it and all its descendants, also those that left its session."""
        self._signal(signal.SIGTERM)
        if not self.exited.done():
            await asyncio.wait({self.exited}, timeout=TERM_GRACE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_LIMIT_S):
                await self._kill_all()
        self._input.close()
        self._close_output()

    def _launch(
        self, argv: Sequence[str], folder: str, environment: Mapping[str, str], *, is_trusted: bool
    ) -> tuple[int, int]:
        """Start the process; return our ends of its output pipe and its input pipe."""
        output_fd, child_output_fd = os.pipe()
        child_input_fd, input_fd = os.pipe()
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                env=environment,
                stdin=child_input_fd,
                stdout=child_output_fd,
                stderr=None if is_trusted else subprocess.STDOUT,
                start_new_session=True,
            )
            self._wait_in_thread()
        except (OSError, ValueError) as error:
            os.close(output_fd)
            os.close(input_fd)
            if isinstance(error, OSError):
                raise
            # A NUL, or a character that no bytes stand for: no program can be started with it.
            raise OSError(errno.EINVAL, str(error)) from error
        finally:
            os.close(child_output_fd)
            os.close(child_input_fd)
        return output_fd, input_fd

    async def _kill_all(self) -> None:
        # Repeat: a program that forks meanwhile is faster than one look at /proc.
        self._signal(signal.SIGKILL)
        while survivors := processes.survivors(self._process.pid, Child.leaders):
            for pid in survivors:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(KILL_PAUSE_S)
            self._signal(signal.SIGKILL)
        await asyncio.shield(self.exited)

    def _signal(self, number: signal.Signals) -> None:
        # Also after the leader has ended: its children may still hold the app's port.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _wait_in_thread(self) -> None:
        # A thread, not a pidfd: gVisor has none.
        Child.leaders.add(self._process.pid)
        try:
            threading.Thread(target=self._wait, daemon=True).start()
        except RuntimeError as error:  # the sandbox is full of processes, threads included
            self._signal(signal.SIGKILL)
            self._process.wait()
            Child.leaders.discard(self._process.pid)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def _wait(self) -> None:
        status = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._on_exit, status)

    def _on_exit(self, status: int) -> None:
        Child.leaders.discard(self._process.pid)
        # Its last lines explain the exit, so read them first. Bounded, because other processes may
        # hold the pipe and go on writing.
        for _ in range(CHUNKS_AFTER_EXIT):
            if self._output_fd < 0 or not self._read_output():
                break
        self._hand_on_skipped()
        if not self.exited.done():
            self.exited.set_result(status)

    def _read_output(self) -> bool:
        """Hand on one chunk of output. False if there is none at the moment."""
        try:
            chunk = os.read(self._output_fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._close_output()
            return False
        admission = Admission.KEEP
        if self._meter is not None:
            admission = self._meter.admit(chunk, self._loop.time())
        if admission is Admission.KEEP:
            self._hand_on_skipped()
            self._hand_on(chunk)
            return True
        if not self._skipped:
            self._loop.call_later(1.0, self._hand_on_skipped)
        self._skipped_bytes += len(chunk)
        self._skipped = (self._skipped + chunk)[-SKIPPED_BYTES:]
        if admission is Admission.WAIT:
            self._pause_reading()
        return True

    def _hand_on(self, chunk: bytes) -> None:
        for line in self._splitter.feed(chunk):
            self._on_line(line)

    def _hand_on_skipped(self) -> None:
        """Hand on the end of what was too much to look at: it may say why the program ended."""
        if not self._skipped:
            return
        lines = self._skipped.split(b"\n")[-SKIPPED_LINES:]
        end = b"\n".join(lines)
        left_out = self._skipped_bytes - len(end)
        self._skipped, self._skipped_bytes = b"", 0
        mention = f"\n[{left_out} bytes dropped: too much to look at]\n" if left_out else ""
        self._hand_on(mention.encode() + end)

    def _pause_reading(self) -> None:
        # The pipe fills up and the writer waits, so endless output costs us no more time.
        self._loop.remove_reader(self._output_fd)
        self._loop.call_later(1.0, self._resume_reading)

    def _resume_reading(self) -> None:
        if self._output_fd >= 0:
            self._loop.add_reader(self._output_fd, self._read_output)

    def _close_output(self) -> None:
        if self._output_fd < 0:
            return
        self._loop.remove_reader(self._output_fd)
        os.close(self._output_fd)
        self._output_fd = -1
        self._hand_on_skipped()
        for line in self._splitter.finish():
            self._on_line(line)


def describe_exit(status: int) -> str:
    """`exited with status 1`, or `was killed by SIGKILL`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
