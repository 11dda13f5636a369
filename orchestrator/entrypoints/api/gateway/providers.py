"""The providers that can answer a call: Anthropic's API, and OpenAI-compatible endpoints.

A provider sends one request per attempt. `chain` decides which provider to use, and when.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from orchestrator.config import Settings
from orchestrator.contract import json_bounds
from orchestrator.domain import errors
from orchestrator.domain.llm import optional_fields, thoughts, tool_ids
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.clients import Clients
from orchestrator.entrypoints.api.gateway.last_chunks import LAST_CHUNK_S, until_over
from orchestrator.entrypoints.api.gateway.wire import Head, headers_for_client
from orchestrator.services.llm import metering, openai_answer, openai_request
from orchestrator.services.llm.openai_stream import CompletionStream

_CONNECT_TIMEOUT_S = 10.0
_WHOLE_READ_TIMEOUT_S = 600.0  # the API's own limit for an answer that isn't streamed
_ANSWER_MAX_BYTES = 64 * 1024**2  # 128,000 tokens in events take 20 MiB
_WHOLE_MAX_BYTES = 8 * 1024**2  # of one that we read as a whole
_VALUES_MAX = 50_000  # in an answer
_BYTES_PER_TOKEN = 3  # a guess, for endpoints that can't count tokens
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
            timeout=_timeout_for(request, self._silence_s),
        )
        response = await _send(self._client, http_request)
        if response.has_redirect_location:
            return await _moved(response)
        head = Head(status=response.status_code, headers=headers_for_client(response.headers))
        return ProviderResponse(head=head, chunks=_chunks(response), http_response=response)


class OpenAi:
    """An OpenAI-compatible endpoint. Requests and responses are translated."""

    name = "openai"
    setting = "SPAWN_OPENAI_API_KEY"

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        base_url: str,
        key: str,
        model: str,
        limit_field: str,
        silence_s: float,
        last_chunk_s: float = LAST_CHUNK_S,
    ) -> None:
        """`silence_s`: the longest wait for the next bytes of a stream. `last_chunk_s`: the same
        once the reason to stop is known; the usage may still come."""
        self._client = client
        self._last_chunk_s = last_chunk_s
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._model = model
        self._limit_field = limit_field
        self._silence_s = silence_s

    def model_for(self, _: ModelRequest) -> str:
        return self._model

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        if request.counts_tokens:
            count = len(request.raw) // _BYTES_PER_TOKEN + 1
            return _json_response(200, {"input_tokens": count}, {})
        response = await _send(self._client, self._http_request(request))
        if response.has_redirect_location:
            return await _moved(response)
        headers = _translated_headers(response)
        answer_id = secrets.token_hex(12)
        if response.status_code >= 400:
            return _json_response(response.status_code, await _read_json(response), headers)
        if not request.parsed.stream:
            document = await _read_json(response)
            if openai_answer.find_error(document):
                return _json_response(200, document, headers)
            estimate = metering.worst_case(request.parsed)
            with _endpoints_failure():
                message = openai_answer.translate_completion(document, estimate, answer_id)
            return _json_response(200, message, headers)
        stream_headers = {**headers, "content-type": "text/event-stream; charset=utf-8"}
        return ProviderResponse(
            head=Head(status=200, headers=stream_headers),
            chunks=_translated_events(
                response, CompletionStream(request.parsed, answer_id), self._last_chunk_s
            ),
            http_response=response,
        )

    def body_for(self, request: ProviderRequest) -> Mapping[str, Any]:
        body = openai_request.translate(
            request.parsed.body, model=self._model, limit_field=self._limit_field
        )
        return optional_fields.without(body, request.without)

    def _http_request(self, request: ProviderRequest) -> httpx2.Request:
        return self._client.build_request(
            "POST",
            self._url,
            content=json.dumps(self.body_for(request)).encode(),
            headers={**self._headers, "content-type": "application/json"},
            timeout=_timeout_for(request, self._silence_s),
        )


def configured_providers(settings: Settings, clients: Clients) -> list[Provider]:
    """The providers that have a key or an address in the settings, in the order of their use."""
    llm = settings.llm
    providers: list[Provider] = []
    anthropic_like = (
        (
            "canned" if llm.demo else "anthropic",
            "ANTHROPIC_API_KEY",
            llm.anthropic_base_url,
            llm.anthropic_api_key,
        ),
        (
            "fallback",
            "SPAWN_FALLBACK_API_KEY",
            llm.fallback_base_url or llm.anthropic_base_url,
            llm.fallback_api_key,
        ),
    )
    for name, setting, base_url, secret in anthropic_like:
        key = secret.get_secret_value()
        if key:
            providers.append(
                Anthropic(
                    clients.client_for(base_url),
                    name=name,
                    setting=setting,
                    base_url=base_url,
                    key=key,
                    silence_s=llm.provider_silence_s,
                )
            )
    if llm.openai_base_url:
        providers.append(
            OpenAi(
                clients.client_for(llm.openai_base_url),
                base_url=llm.openai_base_url,
                key=llm.openai_api_key.get_secret_value(),
                model=llm.openai_model,
                limit_field=llm.openai_limit_field,
                silence_s=llm.provider_silence_s,
            )
        )
    return providers


def _timeout_for(request: ProviderRequest, silence_s: float) -> httpx2.Timeout:
    is_quick = request.parsed.stream or request.counts_tokens
    read_s = silence_s if is_quick else max(_WHOLE_READ_TIMEOUT_S, silence_s)
    return httpx2.Timeout(read_s, connect=_CONNECT_TIMEOUT_S)


async def _send(client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    try:
        return await client.send(request, stream=True)
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error


async def _moved(response: httpx2.Response) -> ProviderResponse:
    """We don't follow a redirect: the key is meant for the address in the settings."""
    await response.aclose()
    message = (
        f"the provider's address leads to another one ({response.status_code}), which may be the"
        f" right one for the setting: {response.headers['location'][:300]}"
    )
    error = {"type": "not_found_error", "message": message}
    return _json_response(404, {"type": "error", "error": error}, {})


async def _chunks(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body, which we asked not to be compressed. Some servers do it nevertheless."""
    size = 0
    try:
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > _ANSWER_MAX_BYTES:
                raise errors.Temporary("the provider's answer doesn't end")
            yield chunk
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error


async def _read_json(response: httpx2.Response) -> Any:
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


async def _translated_events(
    response: httpx2.Response, stream: CompletionStream, last_chunk_s: float
) -> AsyncIterator[bytes]:
    """A stream of chat completions as a stream of the Messages API."""
    chunks = until_over(_chunks(response), lambda: stream.may_be_over, last_chunk_s)
    with _endpoints_failure():
        async with aclosing(chunks):
            async for chunk in chunks:
                yield wire.frames(stream.feed(chunk))
                if stream.is_done:
                    break
        yield wire.frames(stream.end())


@contextmanager
def _endpoints_failure() -> Iterator[None]:
    """What doesn't fit is the endpoint's failure. A broken connection stays what it is."""
    try:
        yield
    except AnswerLost:
        raise
    except (errors.Temporary, ValueError) as error:
        raise NoAnswer(str(error)) from error


def _json_response(status: int, body: Any, headers: Mapping[str, str]) -> ProviderResponse:
    async def whole_body() -> AsyncIterator[bytes]:
        yield json.dumps(body).encode()

    forwarded = headers_for_client({**headers, "content-type": "application/json"})
    return ProviderResponse(head=Head(status=status, headers=forwarded), chunks=whole_body())


def _translated_headers(response: httpx2.Response) -> dict[str, str]:
    headers = {**response.headers}
    if "x-request-id" in headers:
        headers["request-id"] = headers["x-request-id"]
    return headers_for_client(headers)


def _unreachable(error: httpx2.HTTPError) -> errors.Temporary:
    message = f"the provider does not answer ({type(error).__name__})"
    if isinstance(error, _NOT_SENT):
        return errors.Temporary(message, code="provider_unavailable")
    lost = AnswerLost(message)
    lost.is_late = isinstance(error, httpx2.ReadTimeout)
    return lost
