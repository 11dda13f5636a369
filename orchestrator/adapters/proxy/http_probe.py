"""ports.Probe over plain HTTP. Converge calls it before a session becomes READY."""

from __future__ import annotations

import http.client

from orchestrator.domain.ids import Slug


class HttpProbe:
    """Sends requests for apps below `apps_domain` to the proxy at `address` (host:port)."""

    def __init__(self, address: str, apps_domain: str) -> None:
        self._address = address
        self._apps_domain = apps_domain

    def answers(self, slug: Slug, timeout_s: float) -> bool:
        """Return whether GET / of that app, through the proxy, has a status below 400 in time.

        The proxy forwards a response head at once, so `timeout_s` bounds the whole call and not
        each read.
        """
        connection = http.client.HTTPConnection(self._address, timeout=timeout_s)
        try:
            connection.request("GET", "/", headers={"Host": f"{slug}.{self._apps_domain}"})
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
