"""ports.Probe over plain HTTP. Converge and the agents' process call it."""

from __future__ import annotations

import socket
import time

from orchestrator.contract.front_pages import PAGE_HEADER, TRIAL_HEADER
from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_ROOM_BYTES
from orchestrator.contract.health import BROWSER_HEADERS, Answer, Condition, Finding, Walk
from orchestrator.domain.ids import Slug

_HTTP_PORT = 80  # browsers leave it out
_HEAD_END = b"\r\n\r\n"


class HttpProbe:
    """Sends requests for apps below `apps_domain` to the proxy at `address` (host:port)."""

    def __init__(self, address: str, apps_domain: str, public_port: int = _HTTP_PORT) -> None:
        """`public_port` is the one in the addresses that visitors open."""
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._domain = apps_domain if public_port == _HTTP_PORT else f"{apps_domain}:{public_port}"

    def walk(self, slug: Slug, timeout_s: float, trial: str = "") -> Finding:
        """Open the app as a browser does, through the proxy. See ports.Probe.

        Only heads are read, by hand: the standard library refuses some that browsers take, with
        more than 100 lines for example.
        """
        host = f"{slug}.{self._domain}"
        ends_at_s = time.monotonic() + timeout_s
        walk = Walk(host)
        finding = None
        while finding is None:
            try:
                head = self._ask(host, walk.path, trial, ends_at_s)
                finding = walk.take(_answer_of(head))
            except TimeoutError:
                problem = f"has no answer after {timeout_s:g} s"
                finding = walk.unanswered(Condition.SILENT, problem)
            except OSError as error:
                problem = f"doesn't get to the proxy ({error.strerror or error})"
                finding = walk.unanswered(Condition.UNREACHED, problem)
            except ValueError:
                finding = walk.unanswered(Condition.UNREACHED, "gets no answer of the proxy")
        return finding

    def _ask(self, host: str, path: str, trial: str, ends_at_s: float) -> bytes:
        """The head of the answer. Raises OSError; TimeoutError is one."""
        headers = [
            ("Host", host),
            *BROWSER_HEADERS,
            ("Accept-Encoding", "gzip, br"),
            # On the control port the proxy takes these two from us.
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            *([(TRIAL_HEADER, trial)] if trial else []),
            ("Connection", "close"),
        ]
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        request = "\r\n".join([*lines, "", ""]).encode("ascii")
        with self._connect(_left_s(ends_at_s)) as connection:
            connection.sendall(request)
            head = bytearray()
            while _HEAD_END not in head and len(head) < HEAD_MAX_BYTES + 2 * HEAD_ROOM_BYTES:
                connection.settimeout(_left_s(ends_at_s))
                chunk = connection.recv(HEAD_MAX_BYTES)
                if not chunk:
                    break
                head += chunk
        return bytes(head.partition(_HEAD_END)[0])

    def _connect(self, timeout_s: float) -> socket.socket:
        try:
            return socket.create_connection(self._address, timeout=timeout_s)
        except TimeoutError as error:  # it is the proxy that doesn't answer
            raise ConnectionError("it takes no connection") from error


def _left_s(ends_at_s: float) -> float:
    left_s = ends_at_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _answer_of(head: bytes) -> Answer:
    """Raises ValueError if it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        raise ValueError("no status line")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), value.strip())
    return Answer(
        status=int(words[1]),
        location=headers.get("location"),
        asks_to_log_in="www-authenticate" in headers,
        page=headers.get(PAGE_HEADER.lower(), ""),
    )
