"""One request to a provider's endpoint over HTTP. Used by the providers.

Every failure of the connection becomes an error of ours, which says whether the request arrived.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

from orchestrator.contract import json_bounds
from orchestrator.domain import errors
from orchestrator.entrypoints.api.gateway.providers.provider import (
    AnswerLost,
    ProviderRequest,
    ProviderResponse,
)
from orchestrator.entrypoints.api.gateway.wire import Head, headers_for_client

_CONNECT_TIMEOUT_S = 10.0
_WHOLE_READ_TIMEOUT_S = 600.0  # the API's own limit for an answer that isn't streamed
_ANSWER_MAX_BYTES = 64 * 1024**2  # 128,000 tokens in events take 20 MiB
_WHOLE_MAX_BYTES = 8 * 1024**2  # of one that we read as a whole
_VALUES_MAX = 50_000  # in an answer
# The request didn't arrive, or not all of it.
_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.WriteError,
    httpx2.WriteTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)


def timeout_for(request: ProviderRequest, silence_s: float) -> httpx2.Timeout:
    """`silence_s`: the longest wait for the next bytes of a stream."""
    is_quick = request.parsed.stream or request.counts_tokens
    read_s = silence_s if is_quick else max(_WHOLE_READ_TIMEOUT_S, silence_s)
    return httpx2.Timeout(read_s, connect=_CONNECT_TIMEOUT_S)


async def send(client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    """Return when the response starts. Raises errors.Temporary, AnswerLost."""
    try:
        return await client.send(request, stream=True)
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error


async def moved(response: httpx2.Response) -> ProviderResponse:
    """The answer to a redirect. We follow none: the key is meant for the configured address."""
    await response.aclose()
    message = (
        f"the provider's address leads to another one ({response.status_code}), which may be the"
        f" right one for the setting: {response.headers['location'][:300]}"
    )
    error = {"type": "not_found_error", "message": message}
    return json_response(404, {"type": "error", "error": error}, {})


async def chunks(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body, which we asked not to be compressed. Some servers do it nevertheless.

    Raises errors.Temporary.
    """
    size = 0
    try:
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > _ANSWER_MAX_BYTES:
                raise errors.Temporary("the provider's answer doesn't end")
            yield chunk
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error


async def read_json(response: httpx2.Response) -> Any:
    """The whole body as JSON, or None if it isn't JSON. Closes the response."""
    raw = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            raw += chunk
            if len(raw) > _WHOLE_MAX_BYTES:
                return None
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error
    finally:
        await response.aclose()
    try:
        return json_bounds.decode(bytes(raw), _VALUES_MAX)
    except ValueError:
        return None


def json_response(status: int, body: Any, headers: Mapping[str, str]) -> ProviderResponse:
    """An answer of ours, or one that was translated as a whole."""

    async def whole_body() -> AsyncIterator[bytes]:
        yield json.dumps(body).encode()

    forwarded = headers_for_client({**headers, "content-type": "application/json"})
    return ProviderResponse(head=Head(status=status, headers=forwarded), chunks=whole_body())


def _unreachable(error: httpx2.HTTPError) -> errors.Temporary:
    message = f"the provider does not answer ({type(error).__name__})"
    if isinstance(error, _NOT_SENT):
        return errors.Temporary(message, code="provider_unavailable")
    lost = AnswerLost(message)
    lost.is_late = isinstance(error, httpx2.ReadTimeout)
    return lost
