"""One child process with its own process group: the app, or the generator.

Used by `app.py` and `generation.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from agent.loglines import LineSplitter

READ_BYTES = 64 * 1024
TERM_GRACE_S = 0.2
"""Nothing in a sandbox survives it: a second of good-bye would only delay the container's stop."""
KILL_LIMIT_S = 2.0
OOM_SCORE = "1000"  # the highest: raising it is always allowed, whatever the container has


class Child:
    """Runs from construction until `stop`. `exited` resolves to the exit status (-N: signal N)."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: str,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        stdin: bytes = b"",
        merge_stderr: bool = True,
    ) -> None:
        """Raises OSError if the program can't be started."""
        self._loop = asyncio.get_running_loop()
        self._on_line = on_line
        self._splitter = LineSplitter()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._output_fd, child_output_fd = os.pipe()
        os.set_blocking(self._output_fd, False)
        input_fd = _readable_fd(stdin)
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=input_fd,
                stdout=child_output_fd,
                stderr=subprocess.STDOUT if merge_stderr else None,
                start_new_session=True,
            )
        except OSError:
            os.close(self._output_fd)
            raise
        finally:
            os.close(child_output_fd)
            os.close(input_fd)
        self._prefer_as_oom_victim()
        self._loop.add_reader(self._output_fd, self._read_output)
        # A thread, not a pidfd: gVisor has none.
        threading.Thread(target=self._wait, daemon=True).start()

    async def stop(self) -> None:
        """End the whole process group; return when its leader is gone."""
        self._signal(signal.SIGTERM)
        if not self.exited.done():
            await asyncio.wait({self.exited}, timeout=TERM_GRACE_S)
        self._signal(signal.SIGKILL)
        if not self.exited.done():
            await asyncio.wait({self.exited}, timeout=KILL_LIMIT_S)
        self._close_output()

    def _signal(self, number: signal.Signals) -> None:
        # Also after the leader's end: its children may still hold the app's port.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _prefer_as_oom_victim(self) -> None:
        # When memory runs out the app must go, not the agent that can restart it.
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{self._process.pid}/oom_score_adj", "w") as f,
        ):
            f.write(OOM_SCORE)

    def _wait(self) -> None:
        status = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._on_exit, status)

    def _on_exit(self, status: int) -> None:
        # What it said last is what explains the exit, so it has to be read first.
        while self._output_fd >= 0 and self._read_output():
            pass
        if not self.exited.done():
            self.exited.set_result(status)

    def _read_output(self) -> bool:
        """Hand on one chunk of output. False when there is none at the moment."""
        try:
            chunk = os.read(self._output_fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._close_output()
            return False
        for line in self._splitter.feed(chunk):
            self._on_line(line)
        return True

    def _close_output(self) -> None:
        if self._output_fd < 0:
            return
        self._loop.remove_reader(self._output_fd)
        os.close(self._output_fd)
        self._output_fd = -1
        for line in self._splitter.finish():
            self._on_line(line)


def _readable_fd(content: bytes) -> int:
    """A descriptor that reads as `content`: a file in memory, so that no size can block us."""
    fd = os.memfd_create("stdin")
    with open(fd, "wb", closefd=False) as sink:
        sink.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def describe_exit(status: int) -> str:
    """`exited with status 1`, or `was killed by SIGKILL`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
