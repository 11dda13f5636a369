"""ports.PortLooks over TCP. The daemon asks it about the published ports of all sandboxes.

One thread connects to many ports at a time, without blocking. It sends a line that is no request.
The agent's front refuses that, however many visitors it has, and the app hears nothing of it: so
each hop to the front has passed something on. A look ends with a reset: so it leaves no entry
behind that the kernel, or a firewall that tracks connections, keeps for minutes.
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
_TIMEOUT_S = 2.5  # of a look: a lost SYN is repeated after 1 s
_NO_REQUEST = b"?\r\n\r\n"
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
    outcomes: dict[Endpoint, int | PortAnswer] = {}  # errno of a connection that isn't accepted
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for endpoint in endpoints:
            outcomes[endpoint] = _begin(endpoint, selector, stack)
        deadline = time.monotonic() + _TIMEOUT_S
        while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
            for key, events in selector.select(left_s):
                outcomes[key.data] = _continue(key, events, selector)
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
    if outcome not in {0, errno.EINPROGRESS}:
        return outcome
    selector.register(connection, selectors.EVENT_WRITE, endpoint)
    return errno.ETIMEDOUT


def _continue(
    key: selectors.SelectorKey, events: int, selector: selectors.BaseSelector
) -> int | PortAnswer:
    """Take a connection one step further. Returns its outcome if the deadline passes now."""
    connection = key.fileobj
    assert isinstance(connection, socket.socket)
    if events & selectors.EVENT_READ:  # what came back may be data, the end or a reset
        selector.unregister(connection)
        return PortAnswer.OPEN
    outcome = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if outcome:
        selector.unregister(connection)
        return outcome
    selector.modify(connection, selectors.EVENT_READ, key.data)
    with contextlib.suppress(OSError):  # it was reset meanwhile, which the next step sees
        connection.send(_NO_REQUEST)
    return PortAnswer.MUTE


def _answer_of(outcome: int | PortAnswer) -> PortAnswer | None:
    """None: the connection failed for a want of ours, e.g. of descriptors."""
    if isinstance(outcome, PortAnswer):
        return outcome
    if outcome == errno.ECONNREFUSED:
        return PortAnswer.REFUSED
    return PortAnswer.SILENT if outcome in _NO_WAY else None
