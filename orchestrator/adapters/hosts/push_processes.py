"""ports.ImagePushes: image pushes, in processes of their own. The `links` loop calls `ensure`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host
from orchestrator.slim import structlog

MODULE = "orchestrator.entrypoints.push_image"
_CONCURRENT_MAX = 3  # each push reads the whole image from the same disk
_RETRY_DELAYS_S = (5.0, 15.0, 60.0)
_SUCCESS_DELAY_S = 12.0  # by then the host has been inspected again, and found to have the image
_STOP_TIMEOUT_S = 5.0

log = structlog.get_logger()


@dataclass(kw_only=True)
class _Push:
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    not_before: float = 0.0  # of the monotonic clock: when the next process may start


class PushProcesses:
    """Run a few pushes at a time, and retry a failed one after a delay."""

    def __init__(
        self,
        argv: Sequence[str] = (sys.executable, "-m", MODULE),
        check_term: Callable[[], None] = lambda: None,
    ) -> None:
        """Each push is a process with this `argv` and the host's name as its last argument.

        `check_term` is called before each, and raises errors.TermOver if we must not act any more.
        """
        self._argv = tuple(argv)
        self._check_term = check_term
        self._pushes: dict[HostId, _Push] = {}

    def ensure(self, hosts: Sequence[Host]) -> None:
        running = sum(self._poll(push) for push in self._pushes.values())
        wanted_ids = {host.id for host in hosts}
        self._pushes = {
            host_id: push
            for host_id, push in self._pushes.items()
            if host_id in wanted_ids or push.process is not None
        }
        for host in hosts:
            push = self._pushes.setdefault(host.id, _Push())
            due = push.process is None and push.not_before <= time.monotonic()
            if running < _CONCURRENT_MAX and due:
                running += self._start(push, host)

    def stop(self) -> None:
        """End all running pushes. Docker drops an image that has not arrived completely."""
        running = [push.process for push in self._pushes.values() if push.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, push: _Push, host: Host) -> bool:
        """Start a push. Returns False if the system has no process for it now."""
        argv = [*self._argv, host.name]
        self._check_term()
        try:
            push.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            push.not_before = time.monotonic() + _RETRY_DELAYS_S[0]
            log.warning("image_push_not_started", host=host.name, error=str(error))
            return False
        log.info("image_push_started", host=host.name)
        return True

    @staticmethod
    def _poll(push: _Push) -> bool:
        """Return whether the push still runs. If it has just ended, set when it may run again."""
        if push.process is None:
            return False
        code = push.process.poll()
        if code is None:
            return True
        push.process = None
        push.failures = 0 if code == 0 else push.failures + 1
        if code == 0:
            delay_s = _SUCCESS_DELAY_S
        else:
            delay_s = _RETRY_DELAYS_S[min(push.failures, len(_RETRY_DELAYS_S)) - 1]
        push.not_before = time.monotonic() + delay_s
        return False
