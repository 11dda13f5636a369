"""What one sandbox can hold of the agents' process, and that nobody else notices. Real sockets."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis.asyncio

from orchestrator import bootstrap, config
from orchestrator.adapters.agent_socket import AgentSocket
from orchestrator.domain import ids
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.sessions.session import Session, SessionState, Wanted
from orchestrator.entrypoints.api.agents import app
from orchestrator.entrypoints.api.agents.connections import Connections, Deadlines
from orchestrator.entrypoints.api.agents.limits import SenderLimits
from orchestrator.entrypoints.api.agents.peers import Peers
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.entrypoints.api.serving import make_server
from tests.e2e.installation import until
from tests.event_loops import store_calls_on_loops
from tests.fakes import samples
from tests.integration.serving import serving

IDLE = 1100
MIB = 1024**2
SHORT = Deadlines(head_s=0.5, body_s=0.5, refused_s=0.5, unread_s=0.5)


class PeersInOneContainer(Peers):
    """Takes every connection for one of the same container."""

    def container(self, connection: socket.socket) -> str | None:
        return "a" * 64


@dataclass(kw_only=True)
class Listener:
    """The agents' process, in a thread of the test."""

    context: Context
    path: Path

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self.path))
        return connection

    def session(self, **changes: object) -> Session:
        fields = {"state": SessionState.GENERATING, "sandbox_id": ids.new_sandbox_id(), **changes}
        session = samples.session(**fields)
        return self.context.deps.store.sessions.add(session, None, max_active=10_000)

    def token(self, session: Session) -> str:
        assert session.sandbox_id is not None
        grant = SessionGrant(session_id=session.id, attempt=1, sandbox_id=session.sandbox_id)
        return self.context.deps.tokens.for_session(grant)

    def sandbox_token(self) -> str:
        """The token of a WARM sandbox."""
        deps = self.context.deps
        deps.store.hosts.put(samples.host())
        now = deps.clock.now()
        sandbox = deps.store.sandboxes.place(samples.new_sandbox(), now)
        deps.store.sandboxes.agent_seen(sandbox.id, now)
        deps.store.sandboxes.mark_routes({sandbox.id: sandbox.slug}, [], now)
        return deps.tokens.for_sandbox(sandbox.id)

    def refusals(self, reason: str) -> float:
        registry = self.context.metrics.registry
        value = registry.get_sample_value("spawn_agent_refusals_total", {"reason": reason})
        return value or 0.0


Start = Callable[..., Listener]


@pytest.fixture
def start(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Start]:
    """Starts a listener."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:

        def run(
            deadlines: Deadlines = SHORT,
            limits: SenderLimits | None = None,
            peers: Peers | None = None,
        ) -> Listener:
            shutil.copy(migrated_sqlite, tmp_path / "spawn.db")
            settings = config.make(state_dir=tmp_path, anthropic_api_key="sk-x")
            context = Context(
                settings=settings,
                deps=bootstrap.build(settings, bootstrap.NoEngines()),
                hub=Hub(redis.asyncio.Redis()),  # never connected
                started_at=datetime.now(UTC),
            )
            stack.callback(context.deps.store.close)
            stack.callback(context.threads.shutdown)
            connections = Connections(
                metrics=context.metrics, deadlines=deadlines, peers=peers or Peers()
            )
            agent_app = app.build(context, Gateway(context), limits or SenderLimits())
            path = tmp_path / "agent.sock"
            stack.enter_context(
                serving(
                    lambda: make_server(
                        agent_app, uds=str(path), http=connections.protocol(), ws="none"
                    )
                )
            )
            return Listener(context=context, path=path)

        yield run
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def _no_store_call_on_a_loop() -> Iterator[None]:
    with store_calls_on_loops() as places:
        yield
    assert places == []


def head(method: str, path: str, token: str, **headers: str) -> bytes:
    """A request's head. In names of headers `_` stands for `-`."""
    fields = {"Host": "home", "Authorization": f"Bearer {token}", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Status and headers of the next answer. Also reads its body."""
    status, headers, _ = whole_answer(connection)
    return status, headers


def whole_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        lines = [line.decode().strip() for line in iter(stream.readline, b"\r\n")]
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = stream.read(int(headers.get("content-length", "0")))
    return status, headers, body


def wait_until_closed(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass


def test_idle_connections_hold_up_nobody_and_are_closed(start: Start) -> None:
    listener = start(deadlines=Deadlines(head_s=3))
    idle = [listener.connect() for _ in range(IDLE)]
    try:
        assert AgentSocket(listener.path).process() == listener.context.process
        with listener.connect() as connection:
            connection.sendall(head("GET", "/agent/inbox", listener.sandbox_token()))
            assert answer(connection)[0] == 204
        for connection in idle:
            wait_until_closed(connection)
        assert listener.refusals("slow_head") == IDLE
    finally:
        for connection in idle:
            connection.close()


def test_a_head_that_trickles_has_to_end_in_time(start: Start) -> None:
    listener = start()
    with listener.connect() as connection:
        connection.sendall(b"GET /agent/health HT")
        wait_until_closed(connection)
    assert listener.refusals("slow_head") == 1


def test_a_head_without_end_is_cut_at_64_kib(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    with listener.connect() as connection:
        connection.sendall(b"GET /agent/health HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(1000):
                connection.sendall(f"X-{number}: {'x' * 1000}\r\n".encode())
        wait_until_closed(connection)
    assert listener.refusals("large_head") == 1


def test_a_container_has_at_most_32_connections(start: Start) -> None:
    listener = start(deadlines=Deadlines(), peers=PeersInOneContainer())
    held = [listener.connect() for _ in range(32)]
    try:
        with listener.connect() as refused:
            wait_until_closed(refused)
        assert listener.refusals("connections") == 1
        held.pop().close()
        wait_for(lambda: AgentSocket(listener.path).process() is not None)
    finally:
        for connection in held:
            connection.close()


def test_our_own_processes_are_in_no_container(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    held = [listener.connect() for _ in range(40)]
    assert AgentSocket(listener.path).process() is not None
    for connection in held:
        connection.close()


@pytest.mark.parametrize("token", ["nonsense", "", "set.a.b.c.d"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/agent/bundle"),
        ("POST", "/sessions/ses_a/progress"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/anything"),
    ],
)
def test_who_has_no_token_is_refused_before_the_body(
    start: Start, method: str, path: str, token: str
) -> None:
    listener = start()
    with listener.connect() as connection:
        connection.sendall(head(method, path, token, Content_Length=str(19 * MIB)))
        assert answer(connection)[0] == 401
        wait_until_closed(connection)


@pytest.mark.parametrize(
    "path", ["/agent/bundle", "/sessions/{id}/progress", "/v1/messages"], ids=str
)
def test_who_may_not_send_a_body_is_refused_before_it(start: Start, path: str) -> None:
    listener = start()
    session = listener.session(wanted=Wanted.GONE)
    method = "PUT" if path == "/agent/bundle" else "POST"
    with listener.connect() as connection:
        connection.sendall(
            head(
                method,
                path.format(id=session.id),
                listener.token(session),
                Content_Length=str(19 * MIB),
            )
        )
        assert answer(connection)[0] == 403


def test_a_body_that_its_head_says_is_too_large_is_refused_before_it(start: Start) -> None:
    listener = start()
    token = listener.token(listener.session())
    with listener.connect() as connection:
        connection.sendall(head("PUT", "/agent/bundle", token, Content_Length=str(21 * MIB)))
        assert answer(connection)[0] == 413


def test_a_body_has_to_end_in_time(start: Start) -> None:
    listener = start()
    token = listener.token(listener.session())
    with listener.connect() as connection:
        connection.sendall(head("PUT", "/agent/bundle", token, Content_Length=str(19 * MIB)))
        connection.sendall(b"x" * MIB)
        wait_until_closed(connection)
    assert listener.refusals("slow_body") == 1


def test_a_sandbox_uploads_one_bundle_at_a_time(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    session, other = listener.session(), listener.session()
    request = head(
        "PUT", "/agent/bundle", listener.token(session), Content_Length="100", Expect="100-continue"
    )
    with listener.connect() as first, listener.connect() as second, listener.connect() as third:
        first.sendall(request)
        assert answer(first)[0] == 100  # it is being read
        second.sendall(request)
        status, headers = answer(second)
        assert (status, headers["retry-after"]) == (429, "1")
        third.sendall(
            head(
                "PUT",
                "/agent/bundle",
                listener.token(other),
                Content_Length="100",
                Expect="100-continue",
            )
        )
        assert answer(third)[0] == 100
    assert listener.refusals("transfers") == 1


def test_a_sandbox_holds_two_polls(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    token = listener.sandbox_token()
    with contextlib.ExitStack() as stack:
        polls = [stack.enter_context(listener.connect()) for _ in range(3)]
        for connection in polls:
            connection.sendall(head("GET", "/agent/inbox?wait=20", token))
        wait_for(lambda: listener.refusals("polls") == 1)


def test_a_poll_that_was_given_up_makes_room(start: Start) -> None:
    listener = start(deadlines=Deadlines(), limits=SenderLimits(polls=1))
    token = listener.sandbox_token()
    with listener.connect() as connection:
        connection.sendall(head("GET", "/agent/inbox?wait=25", token))
        wait_for(lambda: poll_status(listener, token) == 429)
    wait_for(lambda: poll_status(listener, token) == 204)


def poll_status(listener: Listener, token: str) -> int:
    with listener.connect() as connection:
        connection.sendall(head("GET", "/agent/inbox?wait=0", token))
        return answer(connection)[0]


def test_a_sandbox_that_asks_too_fast_is_told_to_wait(start: Start) -> None:
    listener = start(deadlines=Deadlines(), limits=SenderLimits(rate_per_s=0.001, burst=3))
    token = listener.sandbox_token()
    with listener.connect() as connection:
        statuses = []
        for _ in range(4):
            connection.sendall(head("GET", "/agent/inbox", token))
            statuses.append(answer(connection)[0])
    assert statuses == [204, 204, 204, 429]
    assert listener.refusals("rate") == 1


def test_the_gateway_says_it_in_its_own_terms(start: Start) -> None:
    listener = start(deadlines=Deadlines(), limits=SenderLimits(rate_per_s=0.001, burst=0))
    token = listener.token(listener.session())
    with listener.connect() as connection:
        connection.sendall(head("POST", "/v1/messages", token, Content_Length="2") + b"{}")
        status, _, body = whole_answer(connection)
    assert status == 429
    assert json.loads(body)["error"]["type"] == "rate_limit_error"


def test_a_sandbox_holds_at_most_so_many_bytes_of_bodies(start: Start) -> None:
    listener = start(deadlines=Deadlines(), limits=SenderLimits(body_bytes=1000))
    token, others = (listener.token(listener.session()) for _ in range(2))
    with listener.connect() as connection, listener.connect() as other:
        for client, sender in ((other, others), (connection, token)):
            client.sendall(head("POST", "/v1/messages", sender, Content_Length="2000"))
            client.sendall(b"x" * 900)
        connection.sendall(b"x" * 200)
        assert answer(connection)[0] == 429
    assert listener.refusals("bytes") == 1


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until this is true, for at most 20 s."""
    until(condition, 20, "the listener to do so")
