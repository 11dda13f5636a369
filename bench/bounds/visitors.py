"""Visitors: users without a key, known by their cookie. Each is another user."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from typing import Any

from tests.e2e.installation import Installation, Response, until

_READY_S = 120
_POLL_S = 10  # a long poll, shorter than any timeout on the way
_TRY_AGAIN_S = 0.2


@dataclass
class Visitor:
    """One visitor. The first answer gives the cookie."""

    spawn: Installation
    cookie: str = ""

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """Raises OSError or http.client.HTTPException without an answer."""
        if self.cookie:
            headers["Cookie"] = self.cookie
        response = self.spawn.call(method, path, body, headers=headers)
        if not self.cookie:
            self.cookie = response.headers.get("set-cookie", "").split(";")[0]
        return response

    def create(self, **fields: Any) -> str:
        """Ask for an app. Returns the session's id. Raises AssertionError if it is refused."""
        response = self.call("POST", "/api/sessions", fields)
        assert response.status == 202, f"{fields}: {response.text}"
        return str(response.json["session_id"])

    def ready_app(self, **fields: Any) -> dict[str, Any]:
        """Ask for an app, and wait until it is READY. Returns its status."""
        session_id = self.create(**fields)
        status = self.await_end_of_start(session_id, _READY_S)
        assert status is not None, f"{session_id} wasn't ready within {_READY_S} s"
        assert status["ready"], status
        return status

    def await_end_of_start(self, session_id: str, within_s: float) -> dict[str, Any] | None:
        """The status once the session is READY, or has failed. None: it is neither in time."""
        deadline = time.monotonic() + within_s
        tag = '"none"'
        while (left_s := deadline - time.monotonic()) > 0:
            path = f"/api/status/{session_id}?wait={min(_POLL_S, left_s):.1f}"
            try:
                response = self.call("GET", path, **{"If-None-Match": tag})
            except (OSError, http.client.HTTPException):
                time.sleep(_TRY_AGAIN_S)  # as a page does
                continue
            if response.status == 200:
                tag = response.headers["etag"]
                status = dict(response.json)
                if status["ready"] or status["status"] in {"failed", "destroyed"}:
                    return status
            elif response.status != 304:
                time.sleep(_TRY_AGAIN_S)
        return None

    def end(self, session_id: str) -> None:
        """Delete the app, patiently. Raises AssertionError with the last answer."""
        answers = [""]

        def is_deleted() -> bool:
            try:
                response = self.call("DELETE", f"/api/sessions/{session_id}")
            except (OSError, http.client.HTTPException) as error:
                answers.append(f"{type(error).__name__}: {error}")
                return False
            answers.append(f"{response.status} {response.text}")
            return response.status in {202, 404, 409}

        try:
            until(is_deleted, _READY_S, f"{session_id} to be deleted")
        except AssertionError as error:
            raise AssertionError(f"{error}: {answers[-1][:200]}") from None
