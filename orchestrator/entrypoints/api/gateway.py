"""The LLM gateway: the Messages API for agents. Session token in, real key out.

Bytes are passed through as they come, in both directions; only credentials are exchanged. The key
never leaves the control plane.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx2
import structlog
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.services import agents
from orchestrator.services.deps import Deps

BODY_MAX_BYTES = 32 * 1024**2  # the Messages API's own limit
_CONNECT_S = 10.0
_BETWEEN_BYTES_S = 120.0  # the API sends pings far more often
_UP = ("anthropic-version", "anthropic-beta", "content-type", "accept", "user-agent")
_DOWN = ("content-type", "request-id", "retry-after", "anthropic-organization-id")
_TYPES: Mapping[int, str] = {401: "authentication_error", 403: "permission_error"}

log = structlog.get_logger()


class Gateway:
    """Forwards to one upstream."""

    def __init__(self, deps: Deps, settings: Settings) -> None:
        self._deps = deps
        self._base_url = settings.anthropic_base_url.rstrip("/")
        self._key = settings.anthropic_api_key
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(_BETWEEN_BYTES_S, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=200),
            trust_env=True,
        )

    async def forward(self, request: Request) -> Response:
        """POST /v1/messages and /v1/messages/count_tokens."""
        refusal = await self._refusal(request)
        if refusal is not None:
            return refusal
        body = await read_bounded(request, BODY_MAX_BYTES)
        if body is None:
            return _error(413, "request_too_large", "the request is larger than the API takes")
        upstream = self._client.build_request(
            "POST",
            self._base_url + request.url.path,
            params=request.url.query.encode() or None,
            content=body,
            headers=self._headers(request),
        )
        try:
            answer = await self._client.send(upstream, stream=True)
        except httpx2.HTTPError as error:
            log.warning("the provider does not answer", error=type(error).__name__)
            return _error(502, "api_error", "the provider does not answer; try again")
        headers = {name: answer.headers[name] for name in _DOWN if name in answer.headers}
        return StreamingResponse(
            _through(answer),
            status_code=answer.status_code,
            headers=headers,
            background=BackgroundTask(answer.aclose),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def _refusal(self, request: Request) -> Response | None:
        token = request.headers.get("x-api-key") or _bearer(request)
        try:
            await run_in_threadpool(agents.authorize_generation, self._deps, token)
        except errors.SpawnError as error:
            status = 401 if isinstance(error, errors.Unauthorized) else 403
            return _error(status, _TYPES[status], str(error))
        if not self._key.get_secret_value():
            return _error(401, "authentication_error", "ANTHROPIC_API_KEY is not set")
        return None

    def _headers(self, request: Request) -> dict[str, str]:
        kept = {name: request.headers[name] for name in _UP if name in request.headers}
        # Compressed events would sit in a buffer on the way.
        return {**kept, "accept-encoding": "identity", "x-api-key": self._key.get_secret_value()}


async def read_bounded(request: Request, limit_bytes: int) -> bytes | None:
    """The whole body, or None when it is larger than allowed."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def _through(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """The upstream's bytes. A cut upstream cuts our answer too, so that nobody takes half of it
    for the whole."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _error(status: int, kind: str, message: str) -> Response:
    """An error in the Messages API's own shape, so that its clients understand it."""
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return JSONResponse(body, status_code=status)
