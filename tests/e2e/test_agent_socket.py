"""The agent socket: which requests of a sandbox are accepted, and how the others are refused."""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.files.bundle_store import digest_of
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.people.tokens import SessionGrant, Tokens
from tests.e2e.installation import Installation

REPORT = {"seq": 999, "phase": "failed", "progress": 100, "message": "", "logs": [], "error": None}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def send(
    spawn: Installation, method: str, path: str, token: str, body: bytes = b"", **headers: str
) -> tuple[int, Any]:
    connection = _UnixConnection(spawn.state_dir / "agent" / "agent.sock")
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {token}", **headers})
        response = connection.getresponse()
        raw = response.read()
        return response.status, json.loads(raw) if b"json" in _content_type(response) else raw
    finally:
        connection.close()


def _content_type(response: http.client.HTTPResponse) -> bytes:
    return (response.getheader("content-type") or "").encode()


def token_of(spawn: Installation, session_id: str, attempt: int = 1) -> str:
    tokens = Tokens((spawn.state_dir / "secret").read_bytes().strip())
    sandbox_id = spawn.admin(f"sessions/{session_id}")["sandbox_id"]
    return tokens.for_session(
        SessionGrant(
            session_id=SessionId(session_id), attempt=attempt, sandbox_id=SandboxId(sandbox_id)
        )
    )


@pytest.fixture
def session_ids(spawn: Installation) -> Iterator[list[str]]:
    """The ids of two READY sessions."""
    session_ids = [spawn.create(template="todo")["session_id"] for _ in range(2)]
    for session_id in session_ids:
        spawn.wait_for(session_id, "ready")
    yield session_ids
    for session_id in session_ids:
        spawn.call("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)


def test_a_report_for_another_session_is_403_and_audited(
    spawn: Installation, session_ids: list[str]
) -> None:
    own_id, other_id = session_ids
    path = f"/sessions/{other_id}/progress"
    status, answer = send(spawn, "POST", path, token_of(spawn, own_id), json.dumps(REPORT).encode())
    assert (status, answer["code"]) == (403, "token_refused")
    assert spawn.status(other_id)["status"] == "ready"
    entries = spawn.admin("audit")["entries"]
    assert ("agent_refused", other_id) in {(entry["action"], entry["subject"]) for entry in entries}


def test_a_report_of_an_attempt_that_is_over_is_403(
    spawn: Installation, session_ids: list[str]
) -> None:
    token = token_of(spawn, session_ids[0], attempt=2)
    path = f"/sessions/{session_ids[0]}/progress"
    assert send(spawn, "POST", path, token, json.dumps(REPORT).encode())[0] == 403


@pytest.mark.parametrize("token", ["nonsense", "set.a.b.c.d", "sbt.x.y"])
def test_an_unknown_token_is_401(spawn: Installation, session_ids: list[str], token: str) -> None:
    path = f"/sessions/{session_ids[0]}/progress"
    assert send(spawn, "POST", path, token, json.dumps(REPORT).encode())[0] == 401
    assert send(spawn, "GET", "/agent/inbox", token)[0] == 401
    assert send(spawn, "POST", "/v1/messages", token, b"{}")[0] == 401


def test_a_late_report_is_dropped_and_changes_nothing(
    spawn: Installation, session_ids: list[str]
) -> None:
    late = {**REPORT, "seq": 1, "phase": "deploying", "progress": 90}
    path = f"/sessions/{session_ids[0]}/progress"
    status, answer = send(
        spawn, "POST", path, token_of(spawn, session_ids[0]), json.dumps(late).encode()
    )
    assert (status, answer) == (200, {"accepted": False})
    assert spawn.status(session_ids[0])["status"] == "ready"


@pytest.mark.parametrize("hostile", ["../outside", "/absolute", "link", "device"])
def test_a_running_apps_hostile_bundle_is_not_even_opened(
    spawn: Installation, session_ids: list[str], hostile: str
) -> None:
    data = _archive(hostile)
    status, answer = send(
        spawn,
        "PUT",
        "/agent/bundle",
        token_of(spawn, session_ids[0]),
        data,
        **{"X-Spawn-Sha256": digest_of(data)},
    )
    assert (status, answer["code"]) == (403, "not_generating")


def test_a_bundle_of_more_than_20_mib_is_refused(
    spawn: Installation, session_ids: list[str]
) -> None:
    data = b"\0" * (20 * 1024**2 + 1)
    status, answer = send(spawn, "PUT", "/agent/bundle", token_of(spawn, session_ids[0]), data)
    assert (status, answer["code"]) == (413, "too_large")


def test_a_running_app_cant_use_its_agents_token_at_the_gateway(
    spawn: Installation, session_ids: list[str]
) -> None:
    status, answer = send(spawn, "POST", "/v1/messages", token_of(spawn, session_ids[0]), b"{}")
    assert (status, answer["error"]["type"]) == (403, "permission_error")


def test_the_tokens_of_a_session_end_with_it(spawn: Installation, session_ids: list[str]) -> None:
    token = token_of(spawn, session_ids[0])
    assert send(spawn, "GET", "/agent/bundle", token)[0] == 200
    spawn.call("DELETE", f"/api/sessions/{session_ids[0]}", key=spawn.operator_key)
    spawn.wait_for(session_ids[0], "destroyed")
    assert send(spawn, "GET", "/agent/bundle", token)[0] == 403


def _archive(hostile: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        manifest = b'{"kind": "static"}'
        info = tarfile.TarInfo("spawn.json")
        info.size = len(manifest)
        archive.addfile(info, io.BytesIO(manifest))
        bad = tarfile.TarInfo(hostile)
        if hostile == "link":
            bad.type, bad.linkname = tarfile.SYMTYPE, "/etc/passwd"
        elif hostile == "device":
            bad.type = tarfile.CHRTYPE
        archive.addfile(bad)
    return buffer.getvalue()
