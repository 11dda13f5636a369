"""What one sandbox can hold of the agents' process, and that nobody else notices. Real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator import bootstrap, config
from orchestrator.adapters.agent_socket import AgentSocket
from orchestrator.contract import wire
from orchestrator.domain import ids
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.pool import agent_sockets
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session, SessionState, Wanted
from orchestrator.entrypoints.api.agents import server
from orchestrator.entrypoints.api.agents.connections import (
    Connections,
    Deadlines,
    is_our_process,
)
from orchestrator.entrypoints.api.agents.limits import REQUESTS, SenderLimits
from orchestrator.entrypoints.api.bounds.layered_rates import Layers
from orchestrator.entrypoints.api.bounds.work_shares import SHARE, layers_of
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.entrypoints.api.serving import Server
from orchestrator.services.rates import Rate
from tests.contract.store.steps import walk
from tests.e2e.installation import until
from tests.event_loops import store_calls_on_loops
from tests.fakes import samples
from tests.fakes.hub import deaf_hub
from tests.integration.serving import serving

IDLE = 1100
MIB = 1024**2
SHORT = Deadlines(head_s=0.5, body_s=0.5, refused_s=0.5, unread_s=0.5)


@dataclass(kw_only=True)
class Listener:
    """The agents' process, in a thread of the test."""

    context: Context

    @property
    def path(self) -> Path:
        """The socket that our own processes use."""
        return self.context.settings.places.agent_socket

    def connect(self) -> socket.socket:
        return connect(self.path)

    def socket_of(self, sandbox: Sandbox) -> Path:
        folder = self.context.settings.places.agent_folder / agent_sockets.SANDBOXES / sandbox.id
        return folder / agent_sockets.SOCKET

    def connect_as(self, sandbox: Sandbox) -> socket.socket:
        """Connect over the sandbox's own socket, once there is one."""
        wait_for(self.socket_of(sandbox).exists)
        return connect(self.socket_of(sandbox))

    def sandbox(self) -> Sandbox:
        """A WARM sandbox."""
        deps = self.context.deps
        deps.store.hosts.put(samples.host())
        now = deps.clock.now()
        sandbox = deps.store.sandboxes.place(samples.new_sandbox(), now)
        deps.store.sandboxes.agent_seen(sandbox.id, now)
        deps.store.sandboxes.mark_routes(samples.routes_of(sandbox), [], now)
        return sandbox

    def token_of(self, sandbox: Sandbox) -> str:
        return self.context.deps.tokens.for_sandbox(sandbox.id)

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
        return self.token_of(self.sandbox())

    def refusals(self, reason: str) -> float:
        registry = self.context.metrics.registry
        value = registry.get_sample_value("spawn_agent_refusals_total", {"reason": reason})
        return value or 0.0


Start = Callable[..., Listener]


@pytest.fixture
def start(migrated_sqlite: Path) -> Iterator[Start]:
    """Starts a listener."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    background: list[asyncio.Task[None]] = []
    with contextlib.ExitStack() as stack:
        # Short, because of the limit for the path of a socket.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spawn-")))

        def run(
            deadlines: Deadlines = SHORT,
            limits: SenderLimits | None = None,
            is_ours: Callable[[socket.socket], bool] = is_our_process,
            share: Rate = SHARE,
        ) -> Listener:
            shutil.copy(migrated_sqlite, folder / "spawn.db")
            settings = config.make(state_dir=folder, anthropic_api_key="sk-x")
            settings.places.agent_folder.mkdir()
            context = Context(
                settings=settings,
                deps=bootstrap.build(settings, bootstrap.NoEngines()),
                hub=deaf_hub(),
                started_at=datetime.now(UTC),
            )
            stack.callback(context.deps.store.close)
            stack.callback(context.threads.shutdown)

            def make() -> Server:
                connections = Connections(context.metrics, deadlines, is_ours)
                gateway = Gateway(context, share)
                made, sockets = server.listen(context, gateway, connections, limits)
                background.append(asyncio.create_task(sockets.run()))
                return made

            stack.enter_context(serving(make))
            return Listener(context=context)

        yield run
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


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
        wait_for(lambda: AgentSocket(listener.path).process() == listener.context.process)
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


def test_a_body_is_not_counted_as_a_head(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    session = listener.session()
    path, token = f"/sessions/{session.id}/progress", listener.token(session)
    body = b"x" * 100 * 1024
    with listener.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(body))
        request = head("POST", path, token, Content_Length=str(len(body))) + body
        connection.sendall(request)  # in one piece
        assert answer(connection)[0] == 422
    assert listener.refusals("large_head") == 0


@pytest.mark.parametrize(
    ("start_of_it", "rest"),
    [(b"0\r\n", b"a:\r\n"), (b"0\r\n", b"aaaa"), (b"1;a=", b"aaaa"), (b"", b"1\r\nx\r\n")],
    ids=["trailers", "the name of a trailer", "an extension of a chunk", "tiny chunks"],
)
def test_what_is_around_a_body_is_no_way_to_fill_memory(
    start: Start, start_of_it: bytes, rest: bytes
) -> None:
    listener = start(deadlines=Deadlines())
    session = listener.session()
    path, token = f"/sessions/{session.id}/progress", listener.token(session)
    with listener.connect() as connection:
        connection.sendall(head("POST", path, token, Transfer_Encoding="chunked") + start_of_it)
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                connection.sendall(rest * 16 * 1024)
        wait_until_closed(connection)
    assert listener.refusals("large_framing") == 1


def test_a_body_may_come_in_small_chunks(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    session = listener.session()
    path, token = f"/sessions/{session.id}/progress", listener.token(session)
    with listener.connect() as connection:
        connection.sendall(head("POST", path, token, Transfer_Encoding="chunked"))
        connection.sendall(b"8\r\n01234567\r\n" * 16 * 1024 + b"0\r\nx-trailer: 1\r\n\r\n")
        assert answer(connection)[0] == 422


def test_who_sends_requests_before_the_answer_is_cut_off(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    with listener.connect_as(listener.sandbox()) as connection:
        connection.sendall(b"GET /agent/inbox HTTP/1.1\r\n\r\n" * 1000)
        assert answer(connection)[0] == 400
        wait_until_closed(connection)
    assert listener.refusals("malformed") == 1


@pytest.mark.parametrize("path", ["/agent/health", "/agent/inbox"])
def test_who_is_refused_has_to_connect_again(start: Start, path: str) -> None:
    listener = start(deadlines=Deadlines())
    request = head("POST", path, "nonsense", Content_Length="2") + b"{}"
    with listener.connect_as(listener.sandbox()) as connection:
        connection.sendall(request)
        assert answer(connection)[0] == 401
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
            assert connection.recv(1) == b""


def test_a_sandbox_with_32_connections_waits_for_one_to_end(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    sandbox, other = listener.sandbox(), listener.sandbox()
    held = [listener.connect_as(sandbox) for _ in range(32)]
    with listener.connect_as(sandbox) as waiting:
        request = head("GET", "/agent/inbox", listener.token_of(sandbox))
        waiting.sendall(request)
        wait_for(lambda: listener.refusals("connections") == 1)
        assert inbox_status(listener, other) == 204
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
        waiting.settimeout(20)
        held.pop().close()
        assert answer(waiting)[0] == 204
    for connection in held:
        connection.close()


def test_a_sandbox_that_connects_1100_times_disturbs_no_other_one(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    sandbox, other = listener.sandbox(), listener.sandbox()
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.setblocking(False)
            wait_for(listener.socket_of(sandbox).exists)
            with contextlib.suppress(BlockingIOError):  # the queue of its socket is full
                connection.connect(str(listener.socket_of(sandbox)))
        wait_for(lambda: listener.refusals("connections") >= 1)
        assert inbox_status(listener, other) == 204
        open_connections = listener.context.metrics.registry.get_sample_value(
            "spawn_agent_connections"
        )
        assert open_connections is not None
        assert open_connections <= 34


def test_a_sandbox_that_connects_again_and_again_has_to_wait(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    sandbox, other = listener.sandbox(), listener.sandbox()

    def is_held_up() -> bool:
        with contextlib.suppress(BlockingIOError):  # the queue of its socket is full
            for _ in range(100):
                listener.connect_as(sandbox).close()
        return listener.refusals("connection_rate") >= 1

    wait_for(is_held_up)
    assert inbox_status(listener, other) == 204

    def is_served_again() -> bool:
        with contextlib.suppress(BlockingIOError):
            return inbox_status(listener, sandbox) == 204
        return False

    wait_for(is_served_again)


def test_over_the_socket_of_a_sandbox_no_token_of_another_one_is_valid(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    sandbox, other = listener.sandbox(), listener.sandbox()
    assert inbox_status(listener, sandbox) == 204
    with listener.connect_as(sandbox) as connection:
        connection.sendall(head("GET", "/agent/inbox", listener.token_of(other)))
        assert answer(connection)[0] == 403
    (entry,) = listener.context.deps.store.audit.list()
    assert (entry.actor, entry.action, entry.subject) == (sandbox.id, "agent_refused", other.id)
    with listener.connect_as(sandbox) as connection:
        token = listener.token(listener.session())
        connection.sendall(head("POST", "/v1/messages", token, Content_Length="2") + b"{}")
        assert answer(connection)[0] == 403


def test_a_sandbox_has_a_socket_until_it_is_gone(start: Start) -> None:
    listener = start()
    sandbox = listener.sandbox()
    wait_for(listener.socket_of(sandbox).exists)
    store, now = listener.context.deps.store.sandboxes, listener.context.deps.clock.now()
    walk(listener.context.deps.store, store.get(sandbox.id), SandboxState.STOPPING)
    store.mark_routes({}, [sandbox.id], now)
    assert listener.socket_of(sandbox).exists(), "its agent has to hear that it is to end"
    walk(listener.context.deps.store, store.get(sandbox.id), SandboxState.GONE)
    wait_for(lambda: not listener.socket_of(sandbox).parent.exists())


def test_a_folder_that_was_left_over_is_removed(start: Start) -> None:
    listener = start()
    sandbox = listener.sandbox()
    folder = listener.socket_of(sandbox).parent.parent / ids.new_sandbox_id()
    wait_for(listener.socket_of(sandbox).exists)
    folder.mkdir()
    wait_for(lambda: not folder.exists())
    assert inbox_status(listener, sandbox) == 204


def test_a_sandbox_cant_list_the_folders_of_others(start: Start) -> None:
    """One that has the earlier layout reaches their parent folder."""
    listener = start()
    sandbox = listener.sandbox()
    wait_for(listener.socket_of(sandbox).exists)
    assert listener.socket_of(sandbox).parent.parent.stat().st_mode & 0o777 == 0o711


def test_sandboxes_that_share_a_socket_have_1000_connections_together(start: Start) -> None:
    listener = start(deadlines=Deadlines(), is_ours=lambda _: False)
    held = [listener.connect() for _ in range(1000)]
    with listener.connect() as refused:
        wait_until_closed(refused)
    assert listener.refusals("connections") == 1
    held.pop().close()
    wait_for(lambda: AgentSocket(listener.path).process() is not None)
    for connection in held:
        connection.close()


def test_our_own_processes_may_connect_as_often_as_they_like(start: Start) -> None:
    listener = start(deadlines=Deadlines())
    held = [listener.connect() for _ in range(IDLE)]
    wait_for(lambda: AgentSocket(listener.path).process() is not None)
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


def inbox_status(listener: Listener, sandbox: Sandbox) -> int:
    """The status of a request that this sandbox makes over its own socket."""
    with listener.connect_as(sandbox) as connection:
        connection.sendall(head("GET", "/agent/inbox", listener.token_of(sandbox)))
        return answer(connection)[0]


def poll_status(listener: Listener, token: str) -> int:
    with listener.connect() as connection:
        connection.sendall(head("GET", "/agent/inbox?wait=0", token))
        return answer(connection)[0]


def asking(burst: int) -> Layers:
    """So many requests of one sandbox, and no more for a long time."""
    return replace(REQUESTS, own=Rate(per_s=0.001, burst=burst))


def test_a_sandbox_that_asks_too_fast_is_told_to_wait(start: Start) -> None:
    listener = start(deadlines=Deadlines(), limits=SenderLimits(request_rate=asking(3)))
    token = listener.sandbox_token()
    with listener.connect() as connection:
        statuses = []
        for _ in range(4):
            connection.sendall(head("GET", "/agent/inbox", token))
            statuses.append(answer(connection)[0])
    assert statuses == [204, 204, 204, 429]
    assert listener.refusals("rate") == 1


NOTHING = Rate(per_s=0.0001, burst=0)
LABORIOUS = b"[" + b"[]," * 9000 + b"[]]"  # some milliseconds of work


def test_a_sandbox_whose_reports_take_long_to_read_is_told_to_wait(start: Start) -> None:
    listener = start(deadlines=Deadlines(), limits=SenderLimits(work=layers_of(NOTHING)))
    session, other = listener.session(), listener.session()
    statuses = [post_odd_report(listener, sender) for sender in (session, session, other)]
    assert statuses == [422, 429, 422]
    assert listener.refusals("work") == 1


def post_odd_report(listener: Listener, session: Session) -> int:
    path, token = f"/sessions/{session.id}/progress", listener.token(session)
    with listener.connect() as connection:
        length = str(len(LABORIOUS))
        connection.sendall(head("POST", path, token, Content_Length=length) + LABORIOUS)
        return answer(connection)[0]


def test_a_report_that_is_too_large_is_refused_unread_and_ends_its_connection(
    start: Start,
) -> None:
    listener = start(deadlines=Deadlines())
    session = listener.session()
    path, token = f"/sessions/{session.id}/progress", listener.token(session)
    with listener.connect() as connection:
        length = wire.REPORT_MAX_BYTES + 1
        connection.sendall(head("POST", path, token, Content_Length=str(length)))
        assert answer(connection)[0] == 413
        received = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(b" " * length + head("GET", "/agent/inbox", token))
            received = connection.recv(65536)
        assert received == b""


def test_five_sandboxes_of_a_user_send_no_more_reports_than_the_user_may(start: Start) -> None:
    rates = Layers(
        own=Rate(per_s=50, burst=100),
        floor=Rate(per_s=0.001, burst=2),
        user=Rate(per_s=0.001, burst=5),
        total=Rate(per_s=500, burst=500),
    )
    listener = start(deadlines=Deadlines(), limits=SenderLimits(request_rate=rates))
    user = ids.new_user_id()
    sessions = [listener.session(user_id=user) for _ in range(5)]
    other = listener.session(user_id=ids.new_user_id())
    statuses = [post_report(listener, session) for _ in range(5) for session in sessions]
    # Its floor of each, and one that overdraws it; what is left is the user's.
    assert statuses.count(200) == 5 * 3 + 6
    assert statuses.count(429) == 4 == listener.refusals("shared_rate")
    assert [post_report(listener, other) for _ in range(5)] == [200] * 5


def post_report(listener: Listener, session: Session) -> int:
    with listener.connect() as connection:
        send_report(connection, listener, session)
        return answer(connection)[0]


def send_report(connection: socket.socket, listener: Listener, session: Session) -> None:
    path, token = f"/sessions/{session.id}/progress", listener.token(session)
    body = json.dumps({"seq": 1, "phase": "deploying", "progress": 90, "logs": []}).encode()
    connection.sendall(head("POST", path, token, Content_Length=str(len(body))) + body)


def test_reports_of_one_user_that_wait_for_the_store_leave_threads_to_others(
    start: Start,
) -> None:
    listener = start(deadlines=Deadlines())
    user = ids.new_user_id()
    sessions = [listener.session(user_id=user) for _ in range(5)]
    other = listener.token(listener.session(user_id=ids.new_user_id()))
    path = listener.context.settings.places.state_dir / "spawn.db"
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
        writer.isolation_level = None
        writer.execute("BEGIN IMMEDIATE")  # whoever records a report waits for this one
        senders = []
        for session in sessions * 10:
            connection = stack.enter_context(listener.connect())
            send_report(connection, listener, session)
            senders.append(connection)
        for _ in range(25):  # all reports have arrived before the last one of these
            with listener.connect() as connection:
                connection.settimeout(5)  # less than a report waits for the store
                connection.sendall(head("GET", "/v1/models", other))
                assert answer(connection)[0] == 200
        writer.execute("ROLLBACK")
        assert {answer(connection)[0] for connection in senders} == {200}


def test_a_session_whose_calls_take_long_to_read_is_told_to_wait(start: Start) -> None:
    listener = start(deadlines=Deadlines(), share=NOTHING)
    token, others = (listener.token(listener.session()) for _ in range(2))
    length, statuses = str(len(LABORIOUS)), []
    for sender in (token, token, others):
        with listener.connect() as connection:
            request = head("POST", "/v1/messages", sender, Content_Length=length)
            connection.sendall(request + LABORIOUS)
            statuses.append(answer(connection)[0])
    assert statuses == [400, 429, 400]
    assert listener.refusals("work") == 1


def test_the_gateway_says_it_in_its_own_terms(start: Start) -> None:
    listener = start(deadlines=Deadlines(), limits=SenderLimits(request_rate=asking(0)))
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
