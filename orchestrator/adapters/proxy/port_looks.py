"""ports.PortLooks over TCP. The daemon asks it about the published ports of all sandboxes.

One thread connects to many ports at a time, without blocking. A look ends with a reset: so it
leaves no entry behind that the kernel, or a firewall that tracks connections, keeps for minutes.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import time
from collections.abc import Collection, Mapping

from orchestrator.domain.pool.published_ports import Endpoint, PortAnswer

_AT_ONCE = 250  # connections
_TIMEOUT_S = 2.5  # of a connection: a lost SYN is repeated after 1 s
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_NO_WAY = frozenset(
    {
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ECONNRESET,
        errno.ECONNABORTED,
    }
)


class TcpPortLooks:
    """ports.PortLooks."""

    def look(self, endpoints: Collection[Endpoint]) -> Mapping[Endpoint, PortAnswer]:
        """As the port says. Takes 2.5 s for each 250 endpoints at most."""
        waiting = list(dict.fromkeys(endpoints))
        answers: dict[Endpoint, PortAnswer] = {}
        for start in range(0, len(waiting), _AT_ONCE):
            answers.update(_look_at(waiting[start : start + _AT_ONCE]))
        return answers


def _look_at(endpoints: Collection[Endpoint]) -> Mapping[Endpoint, PortAnswer]:
    outcomes: dict[Endpoint, int] = {}  # errno of each connection; 0: it was accepted
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for endpoint in endpoints:
            outcomes[endpoint] = _begin(endpoint, selector, stack)
        deadline = time.monotonic() + _TIMEOUT_S
        while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                assert isinstance(key.fileobj, socket.socket)
                outcomes[key.data] = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                selector.unregister(key.fileobj)
    answers = {endpoint: _answer_of(outcome) for endpoint, outcome in outcomes.items()}
    return {endpoint: answer for endpoint, answer in answers.items() if answer is not None}


def _begin(
    endpoint: Endpoint, selector: selectors.BaseSelector, stack: contextlib.ExitStack
) -> int:
    """Begin to connect. Returns the errno as it is if the deadline passes."""
    family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
    try:
        connection = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        outcome = connection.connect_ex(endpoint)
    except OSError as error:
        return error.errno or errno.EINVAL
    if outcome != errno.EINPROGRESS:
        return outcome
    selector.register(connection, selectors.EVENT_WRITE, endpoint)
    return errno.ETIMEDOUT


def _answer_of(outcome: int) -> PortAnswer | None:
    """None: the connection failed for a want of ours, e.g. of descriptors."""
    if outcome == 0:
        return PortAnswer.OPEN
    if outcome == errno.ECONNREFUSED:
        return PortAnswer.REFUSED
    return PortAnswer.SILENT if outcome in _NO_WAY else None
