"""The control plane's HTTP API, as spawnctl calls it. Used by every command that talks to it.

An answer that is no success comes out as Problem; so does silence.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, problems
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

Json = dict[str, Any]

_CONNECT_S = 3.0
_READ_S = 20.0
_PATIENCE_S = 60.0  # a restart of the API takes a few seconds, one after a crash loop up to 5
_RETRY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Polled:
    """One answer to "how is it now?"."""

    status: Json | None  # None: unchanged
    etag: str | None


class Api:
    """One connection to the control plane of this machine: `with Api.of(settings) as api`."""

    def __init__(self, base_url: str, key: str, *, patience_s: float = _PATIENCE_S) -> None:
        """`patience_s`: how long a patient call bears an API that is away."""
        self.base_url = base_url
        self._patience_s = patience_s
        self._met = False  # whether anything of ours has answered yet
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # trust_env: a company's proxy is not for the control plane of this machine.
        self._http = httpx2.Client(
            base_url=base_url,
            headers=headers,
            timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S),
            trust_env=False,
        )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """With the key of whoever runs spawnctl. Raises Problem (key_unreadable)."""
        return cls(local.api_url(settings), local.api_key(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: str | int | None) -> Json:
        """One question, asked once."""
        asked = {name: value for name, value in params.items() if value is not None}
        return _json(self._send("GET", path, params=asked))

    def get_patiently(self, path: str, **params: str | int) -> Json:
        """The same, asked again while the API is away."""
        return _json(self._patiently(lambda: self._send("GET", path, params=params)))

    def post(self, path: str, body: Mapping[str, Any]) -> Json:
        return _json(self._send("POST", path, content=_encoded(body)))

    def delete(self, path: str) -> Json:
        """What the API says of the thing that ends; {} for 204."""
        answer = self._send("DELETE", path)
        return {} if answer.status_code == 204 else _json(answer)

    def create(self, body: Mapping[str, Any], idempotency_key: str) -> Polled:
        """Ask for a session."""
        answer = self._ask("/api/sessions", body, idempotency_key)
        return Polled(status=_json(answer), etag=answer.headers.get("etag"))

    def ask(self, path: str, body: Mapping[str, Any], idempotency_key: str) -> Json:
        """Ask for something that may not be made twice."""
        return _json(self._ask(path, body, idempotency_key))

    def poll(self, session_id: str, etag: str | None, wait_s: int) -> Polled:
        """How a session is, as soon as that differs from `etag`, or after `wait_s`."""
        headers = {"If-None-Match": etag} if etag else {}
        timeout = httpx2.Timeout(wait_s + _READ_S, connect=_CONNECT_S)
        answer = self._patiently(
            lambda: self._send(
                "GET",
                f"/api/status/{session_id}",
                params={"wait": wait_s},
                headers=headers,
                timeout=timeout,
            )
        )
        if answer.status_code == 304:
            return Polled(status=None, etag=etag)
        return Polled(status=_json(answer), etag=answer.headers.get("etag"))

    def probe(self, path: str) -> Json | None:
        """What /health or /ready says, whatever its status; None when nobody of ours answers."""
        try:
            found = self._http.get(path, timeout=_CONNECT_S).json()
        except (httpx2.HTTPError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _ask(self, path: str, body: Mapping[str, Any], key: str) -> httpx2.Response:
        """Repeated while the API restarts: with its key that makes one of it, however often the
        answer got lost."""
        headers, content = {"Idempotency-Key": key}, _encoded(body)
        return self._patiently(lambda: self._send("POST", path, content=content, headers=headers))

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        if "content" in options:
            options["headers"] = {
                **options.get("headers", {}),
                "Content-Type": "application/json",
            }
        try:
            answer = self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise _Away(
                problems.unreachable(
                    f"no control plane answers at {self.base_url} ({error or type(error).__name__})"
                ),
                refused=isinstance(error, httpx2.ConnectError),
            ) from error
        if answer.is_success or answer.status_code == 304:
            return answer
        found = problems.from_answer(answer.status_code, _problem_body(answer))
        if answer.status_code in {502, 503, 504}:
            raise _Away(found, refused=False)
        raise found

    def _patiently(self, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        """Bears an API, or a proxy, that restarts; not a control plane that was never there."""
        ends = time.monotonic() + self._patience_s
        while True:
            try:
                answer = send()
            except _Away as away:
                self._met = self._met or not away.refused
                if time.monotonic() >= ends or not self._met:
                    raise
                time.sleep(_RETRY_S)
            else:
                self._met = True
                return answer


class _Away(Problem):
    """Nobody answers, or only the proxy does: may be over in a moment."""

    def __init__(self, found: Problem, *, refused: bool) -> None:
        super().__init__(found.exit_code, found.code, found.message, *found.advice)
        self.refused = refused  # not even the proxy listens


def _encoded(body: Mapping[str, Any]) -> bytes:
    # Escaped, because an argument that isn't UTF-8 can't be encoded; the API says what it thinks.
    return json.dumps(body, ensure_ascii=True).encode("ascii")


def _json(answer: httpx2.Response) -> Json:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    raise Problem(
        Exit.UNREACHABLE,
        "not_spawnai",
        f"what answers at {answer.url} is not SpawnAI's API",
        "Check SPAWN_HTTP_PORT; see who listens there: ss -ltnp",
    )


def _problem_body(answer: httpx2.Response) -> Json | None:
    try:
        found = answer.json()
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    wait = answer.headers.get("retry-after", "")
    return {**found, "retry_after_s": int(wait)} if wait.isdigit() else found
