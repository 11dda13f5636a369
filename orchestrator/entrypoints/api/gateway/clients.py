"""The connections to providers: through the proxy of the environment, or straight.

`app` makes and closes them; `providers` chooses one for each provider.
"""

from __future__ import annotations

import os

import httpx2

from orchestrator.config import Settings
from orchestrator.domain.llm import proxies
from orchestrator.slim import structlog

log = structlog.get_logger()


class Clients:
    """Keeps connections open between calls. A bad proxy fails calls, never this process."""

    def __init__(self, settings: Settings) -> None:
        llm = settings.llm
        self._llm = llm
        limits = httpx2.Limits(
            max_connections=llm.provider_concurrency + 4,
            max_keepalive_connections=llm.provider_concurrency,
        )
        self._direct = httpx2.AsyncClient(limits=limits, trust_env=False)
        fault = proxies.find_fault(os.environ)
        if fault is None:
            self._proxied = httpx2.AsyncClient(limits=limits, trust_env=True)
        else:
            log.error("proxy_unusable", reason=fault)
            self._proxied = httpx2.AsyncClient(transport=_NoWay(fault), trust_env=False)

    def client_for(self, base_url: str) -> httpx2.AsyncClient:
        """The client for one provider."""
        return self._proxied if self._llm.is_proxied(base_url) else self._direct

    async def close(self) -> None:
        await self._direct.aclose()
        await self._proxied.aclose()


class _NoWay(httpx2.AsyncBaseTransport):
    """Fails each request with what is wrong with the proxy."""

    def __init__(self, fault: str) -> None:
        self._fault = fault

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ProxyError(self._fault, request=request)
