"""ports.Probe over plain HTTP. Converge and the agents' process call it."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

from orchestrator.contract.front_pages import PAGE_HEADER, TRIAL_HEADER
from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_ROOM_BYTES
from orchestrator.contract.health import BROWSER_HEADERS, Answer, Condition, Finding, Walk
from orchestrator.contract.visits import PROBE_HEADER
from orchestrator.domain.ids import Slug

_HTTP_PORT = 80  # browsers leave it out
_HEAD_END = b"\r\n\r\n"
_ROOM_BYTES = 2 * HEAD_ROOM_BYTES
_LAST_CHUNK = b"0\r\n\r\n"
_CHALLENGE = "www-authenticate"
_CHUNK_BYTES = 64 * 1024
_BODY_BYTES = 1024 * 1024  # whether more than this arrives whole is not looked at


class HttpProbe:
    """Sends requests for apps below `apps_domain` to the proxy at `address` (host:port)."""

    def __init__(
        self,
        address: str,
        apps_domain: str,
        public_port: int = _HTTP_PORT,
        *,
        public_scheme: str = "http",
    ) -> None:
        """`public_port` and `public_scheme` are those of the addresses that visitors open."""
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._scheme = public_scheme
        self._domain = apps_domain if public_port == _HTTP_PORT else f"{apps_domain}:{public_port}"

    def walk(self, slug: Slug, timeout_s: float, trial: str = "") -> Finding:
        """Open the app as a browser does, through the proxy. See ports.Probe.

        Answers are read by hand: the standard library refuses some that browsers take, with more
        than 100 lines in their heads for example.
        """
        host = f"{slug}.{self._domain}"
        ends_at_s = time.monotonic() + timeout_s
        walk = Walk(host, self._scheme)
        finding = None
        while finding is None:
            try:
                finding = walk.take(self._ask(host, walk, trial, ends_at_s))
            except TimeoutError:
                problem = f"has no answer after {timeout_s:g} s"
                finding = walk.unanswered(Condition.SILENT, problem)
            except OSError as error:
                problem = f"doesn't get to the proxy ({error.strerror or error})"
                finding = walk.unanswered(Condition.UNREACHED, problem)
            except ValueError:
                finding = walk.unanswered(Condition.UNREACHED, "gets no answer of the proxy")
        return finding

    def _ask(self, host: str, walk: Walk, trial: str, ends_at_s: float) -> Answer:
        """Raises OSError, of which TimeoutError is one, and ValueError for what is no answer."""
        sent = [
            ("Host", host),
            *BROWSER_HEADERS,
            ("Accept-Encoding", "gzip, br"),
            # On the control port the proxy takes these three from us.
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", self._scheme),
            (PROBE_HEADER, "1"),
            *([(TRIAL_HEADER, trial)] if trial else []),
            *([("Cookie", walk.cookie)] if walk.cookie else []),
            ("Connection", "close"),
        ]
        lines = [f"GET {walk.path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]
        request = "\r\n".join([*lines, "", ""]).encode("latin-1")
        with self._connect(_left_s(ends_at_s)) as connection:
            connection.sendall(request)
            received = bytearray()
            while _HEAD_END not in received and len(received) < HEAD_MAX_BYTES + _ROOM_BYTES:
                chunk = _receive(connection, ends_at_s)
                if not chunk:
                    break
                received += chunk
            head, _, body = received.partition(_HEAD_END)
            status, headers, cookies = _parse(bytes(head))
            breaks_off = _breaks_off(connection, headers, body, ends_at_s)
            return Answer(
                status=status,
                location=headers.get("location"),
                challenge=headers.get("www-authenticate", ""),
                page=headers.get(PAGE_HEADER.lower(), ""),
                cookies=cookies,
                breaks_off=breaks_off,
                is_empty=headers.get("content-length") == "0" or body.startswith(_LAST_CHUNK),
            )

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


def _receive(connection: socket.socket, ends_at_s: float) -> bytes:
    connection.settimeout(_left_s(ends_at_s))
    return connection.recv(_CHUNK_BYTES)


def _breaks_off(
    connection: socket.socket, headers: Mapping[str, str], body: bytearray, ends_at_s: float
) -> bool:
    """Whether the body ends before its end. One that takes longer than we wait doesn't."""
    is_chunked = "transfer-encoding" in headers
    length = 0 if is_chunked else int(headers.get("content-length", "0"))
    if not is_chunked and not length:
        return False
    while len(body) < (_BODY_BYTES if is_chunked else min(length, _BODY_BYTES)):
        try:
            chunk = _receive(connection, ends_at_s)
        except OSError as error:
            return not isinstance(error, TimeoutError)
        if not chunk:
            return not (is_chunked and body.endswith(_LAST_CHUNK))
        body += chunk
    return False


def _parse(head: bytes) -> tuple[int, Mapping[str, str], tuple[str, ...]]:
    """Status, headers by their names in lower case, and each Set-Cookie. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        raise ValueError("no status line")
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == _CHALLENGE and _CHALLENGE in headers:
            headers[_CHALLENGE] += f", {value.strip()}"
        if name.lower() == "set-cookie":
            cookies.append(value.strip())
        headers.setdefault(name.lower(), value.strip())
    return int(words[1]), headers, tuple(cookies)
