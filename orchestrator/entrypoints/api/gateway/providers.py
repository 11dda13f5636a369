"""Those who may answer a call. Each is asked once per attempt; `chain` decides whom and when."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.requests import Ask
from orchestrator.entrypoints.api.gateway.wire import Head, headers_down
from orchestrator.services.llm import metering, openai_answer, openai_request

_CONNECT_S = 10.0
_BETWEEN_EVENTS_S = 120.0  # the API sends pings far more often
_WHOLE_S = 600.0  # an answer that isn't streamed comes when it is done: the API's own limit
_BYTES_PER_TOKEN = 3  # where tokens are counted by guess


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A call, ready to be made."""

    path: str  # /v1/messages or /v1/messages/count_tokens
    query: str
    headers: Mapping[str, str]  # what passes of the client's
    raw: bytes
    ask: Ask
    digest: bytes  # of the body's canonical form

    @property
    def counting(self) -> bool:
        return self.path.endswith("/count_tokens")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a provider answers, in the Messages API's terms. Close it."""

    head: Head
    chunks: AsyncIterator[bytes]  # raises errors.Temporary where it breaks off
    response: httpx2.Response | None = None

    async def close(self) -> None:
        if self.response is not None:
            await self.response.aclose()


class Provider(Protocol):
    """One endpoint with one key."""

    @property
    def name(self) -> str:
        """As accounts and metrics call it."""

    @property
    def setting(self) -> str:
        """The setting that holds its key."""

    def model_for(self, ask: Ask) -> str:
        """Which model it asks for, and is paid for."""

    async def ask(self, call: Outgoing) -> Answer:
        """Make the call. Raises errors.Temporary when nothing comes back, errors.InvalidInput
        when the call can't be made to this provider."""


class Anthropic:
    """Anthropic's API, or an endpoint that speaks as it does."""

    def __init__(
        self, client: httpx2.AsyncClient, *, name: str, setting: str, base_url: str, key: str
    ) -> None:
        self.name = name
        self.setting = setting
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._key = key

    def model_for(self, ask: Ask) -> str:
        return ask.model

    async def ask(self, call: Outgoing) -> Answer:
        request = self._client.build_request(
            "POST",
            self._base_url + call.path,
            params=call.query.encode() or None,
            content=call.raw,
            headers={**call.headers, "x-api-key": self._key},
            timeout=_timeout(call),
        )
        response = await _sent(self._client, request)
        head = Head(status=response.status_code, headers=headers_down(response.headers))
        return Answer(head=head, chunks=_raw(response), response=response)


class OpenAi:
    """An OpenAI-compatible endpoint, spoken to in its own words."""

    name = "openai"
    setting = "SPAWN_OPENAI_API_KEY"

    def __init__(
        self, client: httpx2.AsyncClient, *, base_url: str, key: str, model: str, limit_field: str
    ) -> None:
        self._client = client
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._model = model
        self._limit_field = limit_field

    def model_for(self, _: Ask) -> str:
        return self._model

    async def ask(self, call: Outgoing) -> Answer:
        if call.counting:
            return _json_answer(200, {"input_tokens": len(call.raw) // _BYTES_PER_TOKEN + 1}, {})
        body = openai_request.translate(
            call.ask.body, model=self._model, limit_field=self._limit_field
        )
        request = self._client.build_request(
            "POST",
            self._url,
            content=json.dumps(body).encode(),
            headers={**self._headers, "content-type": "application/json"},
            timeout=_timeout(call),
        )
        response = await _sent(self._client, request)
        headers = _their_headers(response)
        estimate = metering.unknown(call.ask)
        if response.status_code >= 400:
            said = openai_answer.error_of(response.status_code, await _decoded(response))
            return _json_answer(response.status_code, said, headers)
        if not call.ask.stream:
            message = openai_answer.message_of(await _decoded(response) or {}, estimate)
            return _json_answer(200, message, headers)
        stream_headers = {**headers, "content-type": "text/event-stream; charset=utf-8"}
        return Answer(
            head=Head(status=200, headers=stream_headers),
            chunks=_events(response, estimate),
            response=response,
        )


def chain_of(settings: Settings, client: httpx2.AsyncClient) -> list[Provider]:
    """The providers that are configured, in the order in which they are asked."""
    made: list[Provider] = []
    ours = settings.llm.anthropic_base_url
    pairs = (
        (
            "canned" if settings.llm.demo else "anthropic",
            "ANTHROPIC_API_KEY",
            ours,
            settings.llm.anthropic_api_key,
        ),
        (
            "fallback",
            "SPAWN_FALLBACK_API_KEY",
            settings.llm.fallback_base_url or ours,
            settings.llm.fallback_api_key,
        ),
    )
    for name, setting, base_url, secret in pairs:
        key = secret.get_secret_value()
        if key:
            made.append(Anthropic(client, name=name, setting=setting, base_url=base_url, key=key))
    if settings.llm.openai_base_url:
        made.append(
            OpenAi(
                client,
                base_url=settings.llm.openai_base_url,
                key=settings.llm.openai_api_key.get_secret_value(),
                model=settings.llm.openai_model,
                limit_field=settings.llm.openai_limit_field,
            )
        )
    return made


def client_for(settings: Settings) -> httpx2.AsyncClient:
    """Connections to the providers, kept between calls."""
    most = settings.llm.provider_concurrency
    return httpx2.AsyncClient(
        limits=httpx2.Limits(max_connections=most + 4, max_keepalive_connections=most),
        trust_env=True,
    )


def _timeout(call: Outgoing) -> httpx2.Timeout:
    return httpx2.Timeout(
        _BETWEEN_EVENTS_S if call.ask.stream or call.counting else _WHOLE_S, connect=_CONNECT_S
    )


async def _sent(client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    try:
        return await client.send(request, stream=True)
    except httpx2.HTTPError as error:
        raise _silent(error) from error


async def _raw(response: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx2.HTTPError as error:
        raise _silent(error) from error


async def _decoded(response: httpx2.Response) -> Any:
    try:
        raw = await response.aread()
    except httpx2.HTTPError as error:
        raise _silent(error) from error
    finally:
        await response.aclose()
    try:
        return json.loads(raw)
    except ValueError:
        return None


async def _events(response: httpx2.Response, estimate: TokenCounts) -> AsyncIterator[bytes]:
    translator = openai_answer.StreamTranslator(estimate)
    try:
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if line.startswith("data:") and data != "[DONE]":
                yield _frames(translator.feed(json.loads(data)))
    except httpx2.HTTPError as error:
        raise _silent(error) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise errors.Temporary("the endpoint's stream is no stream of chat completions") from error
    yield _frames(translator.finish())


def _frames(events: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def _json_answer(status: int, body: Any, headers: Mapping[str, str]) -> Answer:
    async def whole() -> AsyncIterator[bytes]:
        yield json.dumps(body).encode()

    shown = headers_down({**headers, "content-type": "application/json"})
    return Answer(head=Head(status=status, headers=shown), chunks=whole())


def _their_headers(response: httpx2.Response) -> dict[str, str]:
    headers = {**response.headers}
    if "x-request-id" in headers:
        headers["request-id"] = headers["x-request-id"]
    return headers_down(headers)


def _silent(error: httpx2.HTTPError) -> errors.Temporary:
    return errors.Temporary(
        f"the provider does not answer ({type(error).__name__})", code="provider_unavailable"
    )
