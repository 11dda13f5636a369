"""Image pushes as processes beside the daemon: ports.ImagePushes. The `links` loop asks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host
from orchestrator.slim import structlog

MODULE = "orchestrator.entrypoints.push_image"
_AT_ONCE = 3  # each reads the whole image from the same disk
_AGAIN_S = (5.0, 15.0, 60.0)
_REST_S = 12.0  # after a push: until the host was looked at again
_STOP_S = 5.0

log = structlog.get_logger()


@dataclass(kw_only=True)
class _Push:
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    not_before: float = 0.0


class PushProcesses:
    """A few at a time; one that failed is tried again after a while."""

    def __init__(self, argv: Sequence[str] = (sys.executable, "-m", MODULE)) -> None:
        """`argv` and a host's name are what a push is started with."""
        self._argv = tuple(argv)
        self._pushes: dict[HostId, _Push] = {}

    def ensure(self, hosts: Sequence[Host]) -> None:
        running = sum(self._is_running(one) for one in self._pushes.values())
        wanted = {host.id for host in hosts}
        self._pushes = {
            host_id: push
            for host_id, push in self._pushes.items()
            if host_id in wanted or push.process is not None
        }
        for host in hosts:
            push = self._pushes.setdefault(host.id, _Push())
            if running < _AT_ONCE and push.process is None and push.not_before <= time.monotonic():
                push.process = subprocess.Popen(
                    [*self._argv, host.name], stdin=subprocess.DEVNULL, start_new_session=True
                )
                log.info("streaming the runtime image", host=host.name)
                running += 1

    def stop(self) -> None:
        """End those that run; Docker drops what it has only half of an image."""
        running = [one.process for one in self._pushes.values() if one.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @staticmethod
    def _is_running(push: _Push) -> bool:
        """Whether its process still runs; takes note of how it ended."""
        if push.process is None:
            return False
        code = push.process.poll()
        if code is None:
            return True
        push.process = None
        push.failures = 0 if code == 0 else push.failures + 1
        wait_s = _REST_S if code == 0 else _AGAIN_S[min(push.failures, len(_AGAIN_S)) - 1]
        push.not_before = time.monotonic() + wait_s
        return False
