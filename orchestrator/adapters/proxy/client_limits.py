"""What nginx lets one address and one app take, and how it refuses more. nginx_config uses it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from orchestrator.contract.visits import APP_CONNECTIONS_MAX

_BURST_S = 10  # an address may ask at once for so many seconds of its rate
_STARTS_MINUTES = 5  # and start at once what it may start in so many minutes


@dataclass(frozen=True, kw_only=True)
class ClientLimits:
    """Requests to the page and its API, and to apps. Of IPv6 a /64 counts as one address."""

    requests_per_address: int = 100  # a second, to the page
    starts_per_address: int = 10  # a minute: new apps of visitors
    polls_per_address: int = 200  # visitors' requests for a status that are open at a time
    transfers_per_address: int = 50  # bundles, and requests with a body, that are on their way
    reads_per_address: int = 200  # all other answers that may be long and are on their way
    connections_per_address: int = 1200  # requests that are open at a time, to the page; to apps
    app_connections_per_address: int = 128  # requests to one app that are open at a time
    connections_per_app: int = APP_CONNECTIONS_MAX  # the same, of all addresses

    @property
    def requests_at_once_per_address(self) -> int:
        """How many requests an address may make before its rate counts."""
        return _BURST_S * self.requests_per_address

    @property
    def starts_at_once_per_address(self) -> int:
        """How many apps the visitors of an address may start before their rate counts."""
        return _STARTS_MINUTES * self.starts_per_address

    @property
    def start_pause_s(self) -> int:
        """After how many seconds another one may be started."""
        return math.ceil(60 / self.starts_per_address)

    def problems(self) -> dict[str, str]:
        """What a program is told that asks for too much of the page, by what it was too much of."""
        return {
            "requests": _problem(
                "requests",
                self.requests_per_address,
                f"may make {self.requests_per_address} requests a second, and"
                f" {self.requests_at_once_per_address} at once",
            ),
            "starts": _problem(
                "starts",
                self.starts_per_address,
                f"may start {self.starts_per_address} apps a minute, and"
                f" {self.starts_at_once_per_address} at once",
            ),
            "polls": _problem(
                "polls",
                self.polls_per_address,
                f"may have {self.polls_per_address} requests of visitors that wait at a time",
            ),
            "transfers": _problem(
                "transfers",
                self.transfers_per_address,
                f"may send and fetch {self.transfers_per_address} bodies at a time",
            ),
            "reads": _problem(
                "reads",
                self.reads_per_address,
                f"may have {self.reads_per_address} lists and other answers on their way",
            ),
            "connections": _problem(
                "connections",
                self.connections_per_address,
                f"may have {self.connections_per_address} open requests at a time",
            ),
        }


def _problem(kind: str, limit: int, right: str) -> str:
    """Problem details (RFC 9457) as JSON. Without apostrophes: nginx puts it between them."""
    setting = f"SPAWN_{kind.upper()}_PER_ADDRESS"
    problem = {
        "type": "about:blank",
        "title": "Too many",
        "status": 429,
        "detail": f"An address {right}. Ask again later, and less often; the operator raises the"
        f" limit with {setting}.",
        "code": f"too_many_{kind}",
        "limit": limit,
        "setting": setting,
    }
    return json.dumps(problem, separators=(",", ":"))
