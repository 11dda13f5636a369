"""One installation for all cells of a worker, with a proxy before each part that it shares."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from orchestrator.adapters.redis import connection
from tests.chaos import leftovers
from tests.chaos.faults import DOCKER_SOCKET, Part
from tests.chaos.people import Neighbour, User, make_user, settle_neighbour
from tests.conftest import execute, fresh_database
from tests.e2e.installation import Installation, installed, until
from tests.fakes.llm.messages_api import MessagesApi
from tests.integration.redis.server import RedisServer, running_redis

ROLE = "chaos"  # of the installation at PostgreSQL
_KEY = "a-test-key"
TURNS = 3  # calls to the provider at a time
_NOTICED_S = 60
_CONNECTIONS_MAX = 100  # at rest, to each part; pools and long polls hold some


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An installation, its parts, a user who is hit by the fault, and a neighbour."""

    spawn: Installation
    docker: Part
    redis: Part
    postgres: Part
    provider: Part
    model: MessagesApi
    redis_server: RedisServer
    database_url: str  # the database, as its superuser
    victim: User
    neighbour: Neighbour
    processes: Counter[str]  # at rest

    def check_that_newcomers_wait(
        self, fault: AbstractContextManager[None], notice: Callable[[Future[str]], bool]
    ) -> None:
        """A part that everybody needs is broken: apps go on, and who asks for one gets it as soon
        as the part is back. The fault lasts until `notice` is true of the request for it."""
        neighbour = self.neighbour
        with ThreadPoolExecutor(1) as asker:
            with fault:
                asked = asker.submit(neighbour.user.ask)
                until(lambda: notice(asked), _NOTICED_S, "the fault to be noticed")
                neighbour.check_app()
            session_id = asked.result()
        neighbour.user.await_app(session_id)
        neighbour.user.end(session_id)

    def container_of(self, session_id: str) -> Any:
        """The container of a session; None if it has none now."""
        sandbox_id = self.spawn.admin(f"sessions/{session_id}")["sandbox_id"]
        return self.spawn.sandboxes().get(sandbox_id)

    def is_amiss(self, check: str) -> bool:
        """Whether /ready says that this is not well. It can't tell the rest without a database."""
        checks = self.spawn.call("GET", "/ready").json["checks"]
        return check in checks and not checks[check]["ok"]


def cells(faults: Iterable[str], *, slow: Collection[str] = ()) -> list[Any]:
    """The parameters of a test: one per fault. Those in `slow` run only in `make chaos`."""
    return [pytest.param(name, marks=pytest.mark.chaos if name in slow else ()) for name in faults]


@contextlib.contextmanager
def staged(postgres_url: str) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="spawn-chaos-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        model = stack.enter_context(MessagesApi(key=_KEY))
        redis_server = stack.enter_context(running_redis(folder))
        database_url = stack.enter_context(_database(postgres_url))
        database = make_url(database_url)
        docker = Part(DOCKER_SOCKET, listen=folder / "docker.sock")
        redis = Part(redis_server.port)
        postgres = Part(int(str(database.query["port"])))
        provider = Part(int(model.url.rpartition(":")[2]))
        for part in (docker, redis, postgres, provider):
            stack.enter_context(part.running())
        spawn = stack.enter_context(
            installed(
                SPAWN_DOCKER_URL=f"unix://{docker.path}",
                SPAWN_REDIS_URL=f"redis://127.0.0.1:{redis.port}/0",
                SPAWN_DATABASE_URL=(
                    f"postgresql://{ROLE}@127.0.0.1:{postgres.port}/{database.database}"
                ),
                ANTHROPIC_API_KEY=_KEY,
                ANTHROPIC_BASE_URL=f"http://127.0.0.1:{provider.port}",
                SPAWN_PROVIDER_RETRY_S="2",
                SPAWN_PROVIDER_CONCURRENCY=str(TURNS),
                SPAWN_WARM_TARGET="1",
                SPAWN_SLOTS="12",
            )
        )
        yield Scene(
            spawn=spawn,
            docker=docker,
            redis=redis,
            postgres=postgres,
            provider=provider,
            model=model,
            redis_server=redis_server,
            database_url=database_url,
            victim=make_user(spawn, "victim"),
            neighbour=settle_neighbour(spawn, model),
            processes=leftovers.count_processes(spawn),
        )


@contextlib.contextmanager
def _database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty one for its superuser. It belongs to ROLE, which is none."""
    execute(postgres_url, f"CREATE ROLE {ROLE} LOGIN")
    try:
        with fresh_database(postgres_url, "template0") as url:
            execute(postgres_url, f"ALTER DATABASE {make_url(url).database} OWNER TO {ROLE}")
            yield url
    finally:
        execute(postgres_url, f"DROP ROLE {ROLE}")


@pytest.fixture(scope="session")
def stage(postgres_url: str) -> Iterator[Scene]:
    with staged(postgres_url) as scene:
        yield scene


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    """All is well before the test, and has to be afterwards: the neighbour's app was not restarted,
    and nothing but it and warm sandboxes is left."""
    spawn, neighbour = stage.spawn, stage.neighbour
    try:
        yield stage
    finally:
        stage.model.reset()
        leftovers.end_others(spawn, neighbour.session_id)
    with contextlib.closing(connection.connect(stage.redis_server.url)) as client:
        leftovers.await_rest(
            spawn,
            [neighbour.session_id],
            stage.processes,
            leftovers.redis_keys(client),
            *(_connections(name, getattr(stage, name)) for name in ("docker", "redis", "postgres")),
        )
    neighbour.check_app()


def _connections(name: str, part: Part) -> leftovers.Check:
    def check() -> str:
        count = part.connections
        return f"{count} connections to {name}" if count > _CONNECTIONS_MAX else ""

    return check
