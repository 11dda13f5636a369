"""The agent socket: what a sandbox may say, and what it gets when it lies."""

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


class _Link(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def ask(
    spawn: Installation, method: str, path: str, token: str, body: bytes = b"", **headers: str
) -> tuple[int, Any]:
    link = _Link(spawn.state_dir / "agent" / "agent.sock")
    try:
        link.request(method, path, body, {"Authorization": f"Bearer {token}", **headers})
        answer = link.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if b"json" in _type(answer) else raw
    finally:
        link.close()


def _type(answer: http.client.HTTPResponse) -> bytes:
    return (answer.getheader("content-type") or "").encode()


def token_of(spawn: Installation, session_id: str, attempt: int = 1) -> str:
    tokens = Tokens((spawn.state_dir / "secret").read_bytes().strip())
    box = spawn.admin(f"sessions/{session_id}")["sandbox_id"]
    return tokens.for_session(
        SessionGrant(session_id=SessionId(session_id), attempt=attempt, sandbox_id=SandboxId(box))
    )


@pytest.fixture
def two(spawn: Installation) -> Iterator[list[str]]:
    made = [spawn.create(template="todo")["session_id"] for _ in range(2)]
    for one in made:
        spawn.wait_for(one, "ready")
    yield made
    for one in made:
        spawn.call("DELETE", f"/api/sessions/{one}", key=spawn.operator_key)


def test_a_report_for_another_session_is_403_and_audited(
    spawn: Installation, two: list[str]
) -> None:
    mine, theirs = two
    path = f"/sessions/{theirs}/progress"
    code, said = ask(spawn, "POST", path, token_of(spawn, mine), json.dumps(REPORT).encode())
    assert (code, said["code"]) == (403, "token_refused")
    assert spawn.status(theirs)["status"] == "ready"
    entries = spawn.admin("audit")["entries"]
    assert any(one["action"] == "agent_refused" and one["subject"] == theirs for one in entries)


def test_a_report_of_an_attempt_that_is_over_is_403(spawn: Installation, two: list[str]) -> None:
    token = token_of(spawn, two[0], attempt=2)
    path = f"/sessions/{two[0]}/progress"
    assert ask(spawn, "POST", path, token, json.dumps(REPORT).encode())[0] == 403


@pytest.mark.parametrize("token", ["nonsense", "set.a.b.c.d", "sbt.x.y"])
def test_a_token_that_is_none_of_ours_is_401(
    spawn: Installation, two: list[str], token: str
) -> None:
    path = f"/sessions/{two[0]}/progress"
    assert ask(spawn, "POST", path, token, json.dumps(REPORT).encode())[0] == 401
    assert ask(spawn, "GET", "/agent/inbox", token)[0] == 401
    assert ask(spawn, "POST", "/v1/messages", token, b"{}")[0] == 401


def test_a_late_report_is_dropped_and_moves_nothing(spawn: Installation, two: list[str]) -> None:
    late = {**REPORT, "seq": 1, "phase": "deploying", "progress": 90}
    path = f"/sessions/{two[0]}/progress"
    code, said = ask(spawn, "POST", path, token_of(spawn, two[0]), json.dumps(late).encode())
    assert (code, said) == (200, {"accepted": False})
    assert spawn.status(two[0])["status"] == "ready"


@pytest.mark.parametrize("hostile", ["../outside", "/absolute", "link", "device"])
def test_a_hostile_bundle_is_refused(spawn: Installation, two: list[str], hostile: str) -> None:
    data = _archive(hostile)
    code, said = ask(
        spawn,
        "PUT",
        "/agent/bundle",
        token_of(spawn, two[0]),
        data,
        **{"X-Spawn-Sha256": digest_of(data)},
    )
    assert (code, said["code"]) == (422, "bundle_refused")


def test_a_bundle_of_more_than_20_mib_is_refused(spawn: Installation, two: list[str]) -> None:
    data = b"\0" * (20 * 1024**2 + 1)
    code, said = ask(spawn, "PUT", "/agent/bundle", token_of(spawn, two[0]), data)
    assert (code, said["code"]) == (413, "too_large")


def test_a_running_app_cant_use_its_agents_token_at_the_gateway(
    spawn: Installation, two: list[str]
) -> None:
    code, said = ask(spawn, "POST", "/v1/messages", token_of(spawn, two[0]), b"{}")
    assert (code, said["error"]["type"]) == (403, "permission_error")


def test_the_tokens_of_a_session_die_with_it(spawn: Installation, two: list[str]) -> None:
    token = token_of(spawn, two[0])
    assert ask(spawn, "GET", "/agent/bundle", token)[0] == 200
    spawn.call("DELETE", f"/api/sessions/{two[0]}", key=spawn.operator_key)
    spawn.wait_for(two[0], "destroyed")
    assert ask(spawn, "GET", "/agent/bundle", token)[0] == 403


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
