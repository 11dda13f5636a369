"""When a poll is answered, which tags are known, and how many polls of one user may wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from orchestrator import config, ports
from orchestrator.domain.people.access import LIMITS, Principal, Role
from orchestrator.domain.sessions.session import Session, SessionState, Tier
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.services.people import keys
from tests.fakes.hub import deaf_hub
from tests.unit.services.world import VISITOR, World

Poll = tuple[str, dict[str, str]]  # path, and headers
POLLS_MAX = LIMITS[Tier.FREE].polls_max


@contextmanager
def context_with(world: World, folder: Path, **settings: Any) -> Iterator[Context]:
    url = f"sqlite:///{folder}/store.db"
    context = Context(
        settings=config.make(state_dir=folder, database_url=url, **settings),
        deps=world.deps,
        hub=deaf_hub(),
        started_at=datetime.now(UTC),
    )
    yield context
    context.threads.shutdown()


@asynccontextmanager
async def client_at(context: Context, address: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client whose requests come from this address."""
    transport = httpx2.ASGITransport(public_app.build(context), client=(address, 1234))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def a_poll(world: World, user: Principal) -> Poll:
    """How that user waits for a new session of theirs."""
    path = f"/api/status/{world.create_session(user).id}?wait=60"
    return path, a_cookie(world, user)


def a_cookie(world: World, user: Principal) -> dict[str, str]:
    return {"Cookie": f"spawn_user={world.deps.tokens.for_visitor(user.user_id)}"}


def operator_headers(world: World) -> dict[str, str]:
    operator = keys.create(world.deps, "ops", Tier.OPERATOR, Role.OPERATOR)
    return {"Authorization": f"Bearer {operator.secret}"}


@pytest.mark.parametrize(("processes", "share"), [(1, POLLS_MAX), (3, 7)])
def test_a_user_has_20_polls_of_which_each_process_lets_its_share_wait(
    world: World, tmp_path: Path, processes: int, share: int
) -> None:
    with context_with(world, tmp_path, api_processes=processes) as context:
        poll = a_poll(world, VISITOR)
        asyncio.run(_exceed_the_limit(context, share, poll, operator_headers(world)))


async def _exceed_the_limit(
    context: Context, share: int, poll: Poll, operator: dict[str, str]
) -> None:
    path, cookie = poll
    async with client_at(context, "192.0.2.7") as client:
        polls = [asyncio.create_task(client.get(path, headers=cookie)) for _ in range(share + 1)]
        (refused,), waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        answer = refused.result()
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_polls")
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["limit"] == POLLS_MAX
        assert len(waiting) == share
        assert context.api_metrics.registry.get_sample_value("spawn_waiting_polls") == share
        assert (await client.get(path.partition("?")[0], headers=cookie)).status_code == 200
        others = asyncio.create_task(client.get(path, headers=operator))
        context.hub.close()
        assert {poll.result().status_code for poll in (await asyncio.wait(waiting))[0]} == {200}
        assert (await others).status_code == 200
        assert context.api_metrics.registry.get_sample_value("spawn_refused_polls_total") == 1
        assert context.api_metrics.registry.get_sample_value("spawn_waiting_polls") == 0


DEADLINE_S = 20.0  # below the 60 s that the poll would wait


@pytest.mark.parametrize("state", [SessionState.READY, SessionState.DESTROYED, SessionState.FAILED])
def test_a_session_at_rest_answers_at_once_to_who_sends_no_tag(
    world: World, tmp_path: Path, state: SessionState
) -> None:
    world.add_host()
    world.add_warm_sandbox()
    session = world.create_session(VISITOR)
    if state is SessionState.READY:
        world.run_session(session)
    elif state is SessionState.DESTROYED:
        world.request_end(session)
        world.settle(session)
    else:
        world.converge(session)
        world.report_failure(session, permanent=True)
        world.settle(session)
    assert world.state(session) is state
    path = f"/api/status/{session.id}?wait=60"
    with context_with(world, tmp_path) as context:
        answer = asyncio.run(_in_time(context, path, a_cookie(world, VISITOR)))
    assert (answer.status_code, answer.json()["status"]) == (200, state)


async def _in_time(context: Context, path: str, cookie: dict[str, str]) -> httpx2.Response:
    async with client_at(context, "192.0.2.7") as client, asyncio.timeout(DEADLINE_S):
        return await client.get(path, headers=cookie)


@pytest.mark.parametrize("query", ["", "?wait=60"])
@pytest.mark.parametrize(
    ("if_none_match", "status"),
    [
        ("{tag}", 304),
        ("W/{tag}", 304),
        ('"other", W/{tag}', 304),
        ('W/"other" ,{tag},"another"', 304),
        ("*", 304),
        ('"other"', 200),
        ('W/"other"', 200),
        ("other", 200),
        ("", 200),
    ],
)
def test_a_tag_is_known_also_if_a_proxy_has_made_it_weak(
    world: World, tmp_path: Path, if_none_match: str, status: int, query: str
) -> None:
    session = world.create_session(VISITOR)
    path, cookie = f"/api/status/{session.id}", a_cookie(world, VISITOR)
    with context_with(world, tmp_path) as context:
        context.hub.close()  # nobody waits
        app = public_app.build(context)
        with TestClient(app, base_url="http://localhost", headers=cookie) as client:
            tag = client.get(path).headers["etag"]
            headers = {"If-None-Match": if_none_match.format(tag=tag)}
            answer = client.get(path + query, headers=headers)
    assert (answer.status_code, answer.headers["etag"]) == (status, tag)


class QueueThatGrows:
    """The sessions of a store. At each count more of them are ahead."""

    def __init__(self, sessions: ports.Sessions) -> None:
        self._sessions = sessions
        self._counts = 0

    def count_ahead_of(self, session: Session, now: datetime) -> int:
        self._sessions.count_ahead_of(session, now)  # raises, where nothing may be counted
        self._counts += 1
        return self._counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sessions, name)


@pytest.mark.parametrize("query", ["", "?wait=60"])
def test_an_answer_has_the_position_that_its_tag_stands_for(
    world: World, tmp_path: Path, query: str
) -> None:
    session = world.create_session(VISITOR)
    world.store.sessions = QueueThatGrows(world.store.sessions)  # type: ignore[misc]  # of a Protocol
    headers = {**a_cookie(world, VISITOR), "If-None-Match": '"other"'}
    with context_with(world, tmp_path) as context:
        app = public_app.build(context)
        with TestClient(app, base_url="http://localhost", headers=headers) as client:
            answer = client.get(f"/api/status/{session.id}{query}")
    position = answer.json()["queue_position"]
    assert answer.headers["etag"] == f'"{session.revision}-{position}"'
