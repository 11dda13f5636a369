"""The control plane's HTTP API, as spawnctl calls it. Used by every command that needs the API.

Raises Problem for every response that is not a success, and when nobody answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool import host_fields
from orchestrator.entrypoints.cli import local, problems
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.problems import Problem

Json = dict[str, Any]

HOSTS = "/api/admin/hosts"
PAGE_MAX = 1000  # the most rows that the API returns at once

_CONNECT_S = 3.0
_READ_S = 20.0
# A restart of the API takes a few seconds, a restart after a crash loop up to 5.
_RETRY_FOR_S = 60.0
_RETRY_PAUSE_S = 0.5
# Our address asks for too much just now, perhaps by somebody else. The request wasn't carried out.
_CROWDED = frozenset(
    {
        "too_many_requests",
        "too_many_connections",
        "too_many_polls",
        "too_many_transfers",
        "too_many_starts",
        "too_many_changes",
        "too_many_reads",
        "too_much_work",
    }
)


def host_path(name: str, action: str = "") -> str:
    """The path of one host, or of one action on it. `name` is what the user typed.

    Raises Problem (host_unknown) if it can't name a host.
    """
    if not host_fields.is_name(name):
        raise Problem(
            Exit.NOT_FOUND,
            "host_unknown",
            f"there is no host {errors.quoted(name)}",
            *problems.advice_for("host_unknown"),
        )
    path = f"{HOSTS}/{name}"
    return f"{path}/{action}" if action else path


@dataclass(frozen=True, kw_only=True)
class Polled:
    """A session's status, with the tag that the next poll sends."""

    status: Json | None  # None: unchanged
    etag: str | None


class Api:
    """A client of this machine's control plane: `with Api.from_settings(settings) as api`."""

    def __init__(self, base_url: str, key: str, *, retry_for_s: float = _RETRY_FOR_S) -> None:
        """`retry_for_s`: how long a retrying call tries again while the API is away."""
        self.base_url = base_url
        self._retry_for_s = retry_for_s
        self._reached = False  # whether the control plane or its proxy has answered before
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # trust_env: a company's proxy is not for the control plane of this machine.
        self._http = httpx2.Client(
            base_url=base_url,
            headers=headers,
            timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S),
            trust_env=False,
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Authenticate as the user who runs spawnctl. Raises Problem (key_unreadable)."""
        return cls(local.api_url(settings), local.api_key(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: str | int | Sequence[str] | None) -> Json:
        """GET once. Leaves out parameters that are None."""
        query = {name: value for name, value in params.items() if value is not None}
        return _json(self._send("GET", path, params=query))

    def get_pages(
        self, path: str, rows: str, *, limit: int | None, **params: str | Sequence[str] | None
    ) -> Json:
        """GET a list page by page, `limit` rows at most, None for all. Returns the last page's
        body with the rows of all pages under the name `rows`."""
        body: Json = {}
        collected: list[Json] = []
        cursor: str | None = None
        while not body or (cursor and (limit is None or len(collected) < limit)):
            size = PAGE_MAX if limit is None else min(PAGE_MAX, limit - len(collected))
            body = self.get(path, limit=size, cursor=cursor, **params)
            collected += body[rows]
            cursor = body.get("next")
        return {**body, rows: collected}

    def get_with_retry(self, path: str, **params: str | int) -> Json:
        """GET, and try again while the API is away."""
        return _json(self._with_retry(lambda: self._send("GET", path, params=params)))

    def post(self, path: str, body: Mapping[str, Any]) -> Json:
        return _json(self._send("POST", path, content=_encode(body)))

    def delete(self, path: str) -> Json:
        """DELETE. Returns the API's view of what ends; {} for status 204."""
        response = self._send("DELETE", path)
        return {} if response.status_code == 204 else _json(response)

    def create_session(self, body: Mapping[str, Any], idempotency_key: str) -> Polled:
        """Ask for a session."""
        response = self._post_with_key("/api/sessions", body, idempotency_key)
        return Polled(status=_json(response), etag=response.headers.get("etag"))

    def post_idempotent(self, path: str, body: Mapping[str, Any], idempotency_key: str) -> Json:
        """Ask for something that must not be made twice, and try again while the API is away."""
        return _json(self._post_with_key(path, body, idempotency_key))

    def poll(self, session_id: str, etag: str | None, wait_s: int) -> Polled:
        """Get a session's status as soon as it differs from `etag`, or after `wait_s`."""
        headers = {"If-None-Match": etag} if etag else {}
        timeout = httpx2.Timeout(wait_s + _READ_S, connect=_CONNECT_S)
        response = self._with_retry(
            lambda: self._send(
                "GET",
                f"/api/status/{session_id}",
                params={"wait": wait_s},
                headers=headers,
                timeout=timeout,
            )
        )
        if response.status_code == 304:
            return Polled(status=None, etag=etag)
        return Polled(status=_json(response), etag=response.headers.get("etag"))

    def probe(self, path: str) -> Json | None:
        """Return the body of /health or /ready, whatever its status; None if it is no JSON object
        or nobody answers."""
        try:
            body = self._http.get(path, timeout=_CONNECT_S).json()
        except (httpx2.HTTPError, ValueError):
            return None
        return body if isinstance(body, dict) else None

    def _post_with_key(self, path: str, body: Mapping[str, Any], key: str) -> httpx2.Response:
        """POST, and try again while the API restarts. Thanks to the key the API makes one thing,
        however many responses were lost."""
        headers, content = {"Idempotency-Key": key}, _encode(body)
        return self._with_retry(lambda: self._send("POST", path, content=content, headers=headers))

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        if "content" in options:
            options["headers"] = {
                **options.get("headers", {}),
                "Content-Type": "application/json",
            }
        try:
            response = self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise _Unavailable(
                problems.unreachable(
                    f"no control plane answers at {self.base_url} ({error or type(error).__name__})"
                ),
                refused=isinstance(error, httpx2.ConnectError),
            ) from error
        if response.is_success or response.status_code == 304:
            return response
        body = _problem_body(response) or {}
        problem = problems.from_response(response.status_code, body)
        if response.status_code in {502, 503, 504} or problem.code in _CROWDED:
            pause_s = max(_RETRY_PAUSE_S, body.get("retry_after_s", 0))
            raise _Unavailable(problem, refused=False, pause_s=pause_s)
        raise problem

    def _with_retry(self, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        """Retry while the API or its proxy restarts, or our address is crowded. Don't retry if
        nothing has answered yet: then no control plane runs here."""
        deadline = time.monotonic() + self._retry_for_s
        while True:
            try:
                response = send()
            except _Unavailable as problem:
                self._reached = self._reached or not problem.refused
                if time.monotonic() >= deadline or not self._reached:
                    raise
                time.sleep(min(problem.pause_s, max(0.0, deadline - time.monotonic())))
            else:
                self._reached = True
                return response


class _Unavailable(Problem):
    """Nobody answers, or only the proxy does. May be over in a moment."""

    def __init__(self, problem: Problem, *, refused: bool, pause_s: float = _RETRY_PAUSE_S) -> None:
        super().__init__(problem.exit_code, problem.code, problem.message, *problem.advice)
        self.refused = refused  # not even the proxy listens
        self.pause_s = pause_s  # before the next try


def _encode(body: Mapping[str, Any]) -> bytes:
    # An argument that is no UTF-8 can't be encoded, so escape it. The API judges it.
    return json.dumps(body, ensure_ascii=True).encode("ascii")


def _json(response: httpx2.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    raise Problem(
        Exit.UNREACHABLE,
        "not_spawnai",
        f"what answers at {response.url} is not SpawnAI's API",
        "Check SPAWN_HTTP_PORT; see who listens there: ss -ltnp",
    )


def _problem_body(response: httpx2.Response) -> Json | None:
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    retry_after = response.headers.get("retry-after", "")
    return {**body, "retry_after_s": int(retry_after)} if retry_after.isdigit() else body
