"""Below the disk floor nothing new is taken in. What runs goes on, and what frees room too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.sessions.session import Session, SessionState, Wanted
from orchestrator.services import storage
from orchestrator.services.agents.bundles import keep_bundle
from orchestrator.services.deps import Policy
from orchestrator.services.sessions import changes
from tests.fakes.samples import later
from tests.unit.services.world import VISITOR, World, bundle_of, digest_of

FLOOR = Policy(can_generate=True, model="claude-test", storage_floor_bytes=512 * 1024**2)


def fill(world: World) -> None:
    world.policy, world.free_bytes = FLOOR, 100 * 1024**2


@pytest.fixture
def session(world: World) -> Session:
    return world.create_session(prompt="a tide calendar", template=None)


REQUESTS: dict[str, Callable[[World, Session], object]] = {
    "session": lambda world, _session: world.create_session(),
    "bundle": lambda world, session: keep_bundle(
        world.deps, session, bundle_of(), digest_of(bundle_of())
    ),
    "change": lambda world, session: changes.send_message(
        world.deps, VISITOR, session.id, "make it blue"
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_for_more_is_refused_with_the_reason_and_a_pause(
    world: World, session: Session, name: str
) -> None:
    if name == "change":
        session = world.store.sessions.save(
            replace(session, state=SessionState.READY, bundle=digest_of(bundle_of()))
        )
    if name == "bundle":
        session = world.store.sessions.save(replace(session, state=SessionState.GENERATING))
    fill(world)
    with pytest.raises(errors.StorageFull, match="100 MiB free, of the 512") as caught:
        REQUESTS[name](world, session)
    assert (caught.value.code, caught.value.retry_after_s) == ("storage_low", 60)
    world.free_bytes = FLOOR.storage_floor_bytes
    REQUESTS[name](world, session)


def test_expiry_goes_on_below_the_floor(world: World, session: Session) -> None:
    fill(world)
    (expired,) = world.store.sessions.expire(later(10 * 24 * 3600), 10)
    assert (expired.id, expired.wanted) == (session.id, Wanted.GONE)


def test_a_disk_that_can_not_be_measured_counts_as_full(world: World) -> None:
    def fail() -> int:
        raise errors.StorageUnavailable("can't measure the disk: Input/output error")

    deps = replace(world.deps, free_storage=fail)
    assert storage.find_shortage(deps) == "can't measure the disk: Input/output error"
    with pytest.raises(errors.StorageFull):
        storage.check_room(deps)


def test_the_reserve_is_kept_only_where_there_is_room_for_more_than_it(world: World) -> None:
    world.policy = FLOOR
    world.free_bytes = FLOOR.storage_floor_bytes + world.reserve.size_bytes
    storage.keep_reserve(world.deps)
    assert not world.reserve.release()
    world.free_bytes += world.reserve.size_bytes
    storage.keep_reserve(world.deps)
    assert world.reserve.release()


def test_what_frees_room_is_repeated_once_with_the_reserve(world: World) -> None:
    runs: list[int] = []

    def work() -> str:
        runs.append(1)
        if len(runs) == 1:
            raise errors.StorageFull("the database can't be written")
        return "done"

    with pytest.raises(errors.StorageFull):
        storage.with_reserve(world.deps, work)
    world.reserve.keep()
    runs.clear()
    assert storage.with_reserve(world.deps, work) == "done"
    assert not world.reserve.release(), "it is in use"
