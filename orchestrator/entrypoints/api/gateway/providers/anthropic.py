"""Anthropic's API as a provider: requests and answers pass as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2

from orchestrator.domain.llm import optional_fields, thoughts, tool_ids
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.entrypoints.api.gateway.providers import endpoint
from orchestrator.entrypoints.api.gateway.providers.provider import (
    ProviderRequest,
    ProviderResponse,
)
from orchestrator.entrypoints.api.gateway.wire import Head, headers_for_client


class Anthropic:
    """Anthropic's API, or an endpoint with the same API."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        name: str,
        setting: str,
        base_url: str,
        key: str,
        silence_s: float,
    ) -> None:
        """`silence_s`: the longest wait for the next bytes of a stream."""
        self.name = name
        self.setting = setting
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._silence_s = silence_s

    def model_for(self, request: ModelRequest) -> str:
        return request.model

    def body_for(self, request: ProviderRequest) -> Mapping[str, Any]:
        body = tool_ids.for_messages(thoughts.for_messages(request.parsed.body))
        return optional_fields.without(body, request.without)

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        body = self.body_for(request)
        content = request.raw if body == request.parsed.body else json.dumps(body).encode()
        http_request = self._client.build_request(
            "POST",
            self._base_url + request.path,
            params=request.query.encode() or None,
            content=content,
            headers={**request.headers, "x-api-key": self._key},
            timeout=endpoint.timeout_for(request, self._silence_s),
        )
        response = await endpoint.send(self._client, http_request)
        if response.has_redirect_location:
            return await endpoint.moved(response)
        head = Head(status=response.status_code, headers=headers_for_client(response.headers))
        return ProviderResponse(head=head, chunks=endpoint.chunks(response), http_response=response)
