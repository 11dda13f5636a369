"""ports.Probe over plain HTTP. Converge calls it before a session becomes READY."""

from __future__ import annotations

import socket

from orchestrator.domain.ids import Slug


class HttpProbe:
    """Sends requests for apps below `apps_domain` to the proxy at `address` (host:port)."""

    def __init__(self, address: str, apps_domain: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._apps_domain = apps_domain

    def answers(self, slug: Slug, timeout_s: float) -> bool:
        """Return whether GET / of that app, through the proxy, has a status below 400 in time.

        The proxy forwards a response head at once, so `timeout_s` bounds the whole call and not
        each read. Only the status is read: the standard library refuses heads that browsers take,
        with more than 100 lines for example.
        """
        request = f"GET / HTTP/1.1\r\nHost: {slug}.{self._apps_domain}\r\nConnection: close\r\n\r\n"
        try:
            with socket.create_connection(self._address, timeout=timeout_s) as connection:
                connection.sendall(request.encode("ascii"))
                with connection.makefile("rb") as answer:
                    status = answer.readline(100).split()[1]
            return 200 <= int(status) < 400
        except (OSError, ValueError, IndexError):
            return False
