"""OpenAI-compatible endpoints as a provider: requests and answers are translated."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

import httpx2

from orchestrator.domain import errors
from orchestrator.domain.llm import optional_fields
from orchestrator.domain.llm.requests import ModelRequest
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.last_chunks import LAST_CHUNK_S, until_over
from orchestrator.entrypoints.api.gateway.providers import endpoint
from orchestrator.entrypoints.api.gateway.providers.provider import (
    AnswerLost,
    NoAnswer,
    ProviderRequest,
    ProviderResponse,
)
from orchestrator.entrypoints.api.gateway.wire import Head, headers_for_client
from orchestrator.services.llm import metering, openai_answer, openai_request
from orchestrator.services.llm.openai_stream import CompletionStream

_BYTES_PER_TOKEN = 3  # a guess, for endpoints that can't count tokens


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
            return endpoint.json_response(200, {"input_tokens": count}, {})
        response = await endpoint.send(self._client, self._http_request(request))
        if response.has_redirect_location:
            return await endpoint.moved(response)
        headers = _translated_headers(response)
        answer_id = secrets.token_hex(12)
        if response.status_code >= 400:
            return endpoint.json_response(
                response.status_code, await endpoint.read_json(response), headers
            )
        if not request.parsed.stream:
            document = await endpoint.read_json(response)
            if openai_answer.find_error(document):
                return endpoint.json_response(200, document, headers)
            estimate = metering.worst_case(request.parsed)
            with _endpoints_failure():
                message = openai_answer.translate_completion(document, estimate, answer_id)
            return endpoint.json_response(200, message, headers)
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
            timeout=endpoint.timeout_for(request, self._silence_s),
        )


async def _translated_events(
    response: httpx2.Response, stream: CompletionStream, last_chunk_s: float
) -> AsyncIterator[bytes]:
    """A stream of chat completions as a stream of the Messages API."""
    chunks = until_over(endpoint.chunks(response), lambda: stream.may_be_over, last_chunk_s)
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


def _translated_headers(response: httpx2.Response) -> dict[str, str]:
    headers = {**response.headers}
    if "x-request-id" in headers:
        headers["request-id"] = headers["x-request-id"]
    return headers_for_client(headers)
