"""What a provider is asked and answers, whatever its API. `provider_chain.py` decides which to use.

A provider sends one request per attempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from orchestrator.domain import errors
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.entrypoints.api.gateway.wire import Head


@dataclass(frozen=True, kw_only=True)
class ProviderRequest:
    """An agent's request that passed our checks. It can be sent to a provider."""

    path: str  # /v1/messages or /v1/messages/count_tokens
    query: str
    headers: Mapping[str, str]  # the client's headers that we forward
    raw: bytes  # the body as the client sent it
    parsed: ModelRequest  # the body
    digest: bytes  # of the body's canonical form
    without: frozenset[str] = frozenset()  # optional fields that this provider doesn't know

    @property
    def counts_tokens(self) -> bool:
        """Whether the client wants tokens counted instead of an answer."""
        return self.path.endswith("/count_tokens")

    @property
    def wants_stream(self) -> bool:
        return self.parsed.stream and not self.counts_tokens


@dataclass(frozen=True, kw_only=True)
class ProviderResponse:
    """A provider's response in the Messages API's terms. The caller closes it."""

    head: Head
    chunks: AsyncIterator[bytes]  # raises errors.Temporary if the connection breaks
    http_response: httpx2.Response | None = None

    async def close(self) -> None:
        if self.http_response is not None:
            await self.http_response.aclose()


class AnswerLost(errors.Temporary):
    """The provider got the request, and its answer didn't arrive: it may have worked, and bill it.

    `is_late`: it took longer than we wait. How long an answer that isn't streamed takes is up to
    the request.
    """

    code = "provider_unavailable"
    is_late = False


class NoAnswer(AnswerLost):
    """The provider answered, but not in the terms of its API. Asked again it would bill again."""


class Provider(Protocol):
    """One endpoint with one key."""

    @property
    def name(self) -> str:
        """Its name in accounts and metrics."""

    @property
    def setting(self) -> str:
        """The setting that holds its key."""

    def model_for(self, request: ModelRequest) -> str:
        """The model that it uses for a request. Its price applies."""

    def body_for(self, request: ProviderRequest) -> Mapping[str, Any]:
        """The body that it gets. Raises errors.InvalidInput if it can't take the request."""

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        """Send the request once, and return when the response starts.

        Raises errors.Temporary if the provider doesn't get the request, AnswerLost if it does and
        doesn't answer, and errors.InvalidInput if this provider can't take the request.
        """
