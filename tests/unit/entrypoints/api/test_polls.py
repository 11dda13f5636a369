"""How many requests of one user may wait for a change at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import redis.asyncio

from orchestrator import config
from orchestrator.domain.people.access import LIMITS, Role
from orchestrator.domain.sessions.session import Session, Tier
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.people import keys
from tests.unit.services.world import VISITOR, World

POLLS_MAX = LIMITS[Tier.FREE].polls_max


def test_a_user_has_20_polls_and_others_have_theirs(world: World, tmp_path: Path) -> None:
    nobody = redis.asyncio.Redis(unix_socket_path=str(tmp_path / "missing.sock"))
    context = Context(
        settings=config.make(state_dir=tmp_path, database_url=f"sqlite:///{tmp_path}/store.db"),
        deps=world.deps,
        hub=Hub(nobody),
        started_at=datetime.now(UTC),
    )
    session = world.create_session()
    operator = keys.create(world.deps, "ops", Tier.OPERATOR, Role.OPERATOR)
    asyncio.run(_exceed_the_limit(world, context, session, operator.secret))
    context.threads.shutdown()


async def _exceed_the_limit(
    world: World, context: Context, session: Session, operator_key: str
) -> None:
    path = f"/api/status/{session.id}?wait=60"
    cookie = {"Cookie": f"spawn_user={world.deps.tokens.for_visitor(VISITOR.user_id)}"}
    transport = httpx2.ASGITransport(public_app.build(context))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        polls = [
            asyncio.create_task(client.get(path, headers=cookie)) for _ in range(POLLS_MAX + 1)
        ]
        (refused,), waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        answer = refused.result()
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_polls")
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["limit"] == POLLS_MAX
        assert len(waiting) == POLLS_MAX
        assert (await client.get(path.partition("?")[0], headers=cookie)).status_code == 200
        key = {"Authorization": f"Bearer {operator_key}"}
        others = asyncio.create_task(client.get(path, headers=key))
        context.hub.close()
        assert {poll.result().status_code for poll in (await asyncio.wait(waiting))[0]} == {200}
        assert (await others).status_code == 200
        assert context.api_metrics.registry.get_sample_value("spawn_refused_polls_total") == 1
