"""Apps are opened by the process `agents`: in turn, and without a thread or a worker that waits."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestrator import config
from orchestrator.contract.health import PATIENCE_S, Condition, Finding
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import Slug
from orchestrator.domain.sessions.session import Phase, Session
from orchestrator.entrypoints.api.agents.walks import Walks
from orchestrator.entrypoints.api.context import Context
from orchestrator.ports import topics
from tests.fakes.hub import deaf_hub
from tests.fakes.probe import ProbeThatSucceeds
from tests.fakes.samples import NOW
from tests.unit.services.world import VISITOR, World, bundle_of

DEADLINE_S = 20.0
TICK_S = 0.005
T = TypeVar("T")
WELL = Finding(condition=Condition.WELL)
SILENT = Finding(condition=Condition.SILENT, problem="GET / has no answer.")
OTHER = replace(VISITOR, user_id=ids.UserId("usr_" + "b" * 26))


class ProbeThatHangs(ProbeThatSucceeds):
    """An app in `hanging` answers when it is taken out of that."""

    def __init__(self) -> None:
        super().__init__()
        self.hanging: set[Slug] = set()
        self.under_way: list[Slug] = []

    async def walk(self, slug: Slug, trial: str = "", *, patience_s: float = PATIENCE_S) -> Finding:
        self.under_way.append(slug)
        while slug in self.hanging:
            await asyncio.sleep(TICK_S)
        self.under_way.remove(slug)
        return await super().walk(slug, trial)


class Bench:
    """A world, and the process that walks for it, with its event loop in a thread."""

    def __init__(self, world: World, context: Context, **slots: float) -> None:
        self.world = world
        self.probe = ProbeThatHangs()
        world.probe = self.probe
        self.context = replace(context, deps=world.deps)
        self.walks = Walks(self.context, **slots)  # type: ignore[arg-type]  # counts and seconds
        self.loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> Bench:
        self._thread.start()
        self._running = self.start(self._run())
        wait_for(lambda: topics.WALK in self.context.hub._listeners)
        return self

    def __exit__(self, *_: object) -> None:
        self.probe.hanging.clear()
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._running.result(DEADLINE_S)
        assert not self.is_walking
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        self.loop.close()

    async def _run(self) -> None:
        walking = asyncio.create_task(self.walks.run())
        await self._stopping.wait()
        walking.cancel()
        await asyncio.wait({walking})

    def start(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(call, self.loop)

    def want(self, session: Session) -> None:
        self.loop.call_soon_threadsafe(self.context.hub.wake, f"walk:{session.id}")

    @property
    def is_walking(self) -> bool:
        return bool(self.walks._following)

    def condition_of(self, session: Session) -> Condition | None:
        walked = self.world.session(session).walked
        return None if walked is None else walked.condition

    def wait_until_well(self, session: Session) -> None:
        wait_for(lambda: self.condition_of(session) is Condition.WELL)


def wait_for(is_so: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < ends_at_s
        time.sleep(TICK_S)


Benches = Callable[..., Bench]


@pytest.fixture(name="bench")
def _bench(world: World, tmp_path: Path) -> Iterator[Benches]:
    world.add_host(slots=20)
    context = Context(
        settings=config.make(state_dir=tmp_path), deps=world.deps, hub=deaf_hub(), started_at=NOW
    )
    yield functools.partial(Bench, world, context)
    context.threads.shutdown()


def session_that_runs(world: World, user: object = VISITOR) -> tuple[Session, Slug]:
    """A session whose agent says that its app runs, and the slug of its sandbox."""
    session = world.create_session(user)  # type: ignore[arg-type]
    sandbox = world.add_warm_sandbox()
    world.converge(session)
    world.report(session, Phase.READY)
    return session, sandbox.slug


def test_the_result_of_a_walk_is_written_down_and_nudges(world: World, bench: Benches) -> None:
    with bench() as walking:
        session, slug = session_that_runs(world)
        world.queue.nudges.clear()
        walking.want(session)
        wait_for(lambda: world.queue.nudged == [session.id])
        assert walking.condition_of(session) is Condition.WELL
        assert walking.probe.probed == [slug]


def test_who_hangs_holds_up_only_his_own(world: World, bench: Benches) -> None:
    with bench(slots=3, user_slots=2) as walking:
        hanging = [session_that_runs(world) for _ in range(3)]
        for session, slug in hanging:
            walking.probe.hanging.add(slug)
            walking.want(session)
        wait_for(lambda: len(walking.probe.under_way) == 2)
        other, _ = session_that_runs(world, OTHER)
        walking.want(other)
        walking.wait_until_well(other)
        assert len(walking.probe.under_way) == 2
        for _, slug in hanging:
            walking.probe.hanging.discard(slug)
        for session, _ in hanging:
            walking.wait_until_well(session)


def test_one_session_is_walked_once_at_a_time(world: World, bench: Benches) -> None:
    with bench() as walking:
        session, slug = session_that_runs(world)
        walking.probe.hanging.add(slug)
        for _ in range(3):
            walking.want(session)
        wait_for(lambda: bool(walking.probe.under_way))
        walking.want(session)
        walking.probe.hanging.discard(slug)
        wait_for(lambda: not walking.is_walking)
        assert walking.probe.probed == [slug]


def test_a_walk_that_takes_a_while_is_noted(world: World, bench: Benches) -> None:
    with bench() as walking:
        session, slug = session_that_runs(world)
        walking.probe.hanging.add(slug)
        walking.want(session)
        wait_for(lambda: world.session(session).walked is not None)
        walked = world.session(session).walked
        assert walked is not None
        assert walked.is_first
        walking.probe.hanging.discard(slug)
        walking.wait_until_well(session)


def test_after_a_failed_walk_the_next_one_comes_by_itself(world: World, bench: Benches) -> None:
    with bench() as walking:
        session, _ = session_that_runs(world)
        walking.probe.finding = SILENT
        walking.want(session)
        wait_for(lambda: walking.condition_of(session) is Condition.SILENT)
        walking.probe.finding = WELL
        walking.wait_until_well(session)
        assert len(walking.probe.probed) > 1


@pytest.mark.parametrize("error", [errors.StorageUnavailable("away"), RuntimeError("a bug")])
def test_a_walk_that_breaks_ends_alone(world: World, bench: Benches, error: Exception) -> None:
    class ProbeThatBreaks(ProbeThatHangs):
        def _finding(self) -> Finding:
            if len(self.probed) == 1:
                raise error
            return super()._finding()

    with bench() as walking:
        walking.world.probe = walking.probe = ProbeThatBreaks()
        walking.walks._context = replace(walking.context, deps=world.deps)
        session, _ = session_that_runs(world)
        walking.want(session)
        wait_for(lambda: bool(walking.probe.probed))
        wait_for(lambda: not walking.is_walking)
        assert walking.condition_of(session) is None
        walking.want(session)
        walking.wait_until_well(session)


def test_a_trial_waits_for_its_turn_and_is_not_passed_untried(world: World, bench: Benches) -> None:
    with bench(slots=1) as walking:
        hanging, slug = session_that_runs(world)
        walking.probe.hanging.add(slug)
        walking.want(hanging)
        wait_for(lambda: walking.probe.under_way == [slug])
        session, own_slug = session_that_runs(world, OTHER)
        walking.probe.finding = SILENT
        trial = walking.start(walking.walks.try_version(world.token(session), "abc"))
        wait_for(lambda: walking.walks._slots.waiting == 1)
        assert not trial.done()
        walking.probe.hanging.discard(slug)
        assert trial.result(DEADLINE_S) == SILENT
        assert walking.probe.probed[:2] == [slug, own_slug]


def test_a_trial_whose_turn_does_not_come_is_not_the_apps_fault(
    world: World, bench: Benches
) -> None:
    with bench(slots=1, turn_s=0.01) as walking:
        hanging, slug = session_that_runs(world)
        walking.probe.hanging.add(slug)
        walking.want(hanging)
        wait_for(lambda: walking.probe.under_way == [slug])
        session, _ = session_that_runs(world, OTHER)
        finding = walking.start(walking.walks.try_version(world.token(session), "abc")).result()
        assert finding.condition is Condition.UNREACHED
        walking.probe.hanging.discard(slug)


def test_a_version_whose_change_has_ended_meanwhile_may_not_be_shown(
    world: World, bench: Benches
) -> None:
    with bench() as walking:
        world.probe = ProbeThatSucceeds()
        session = world.generate_app(data=bundle_of())
        world.probe = walking.probe
        world.send_message(session)
        world.converge(session)
        slug = world.sandbox_of(session).slug
        walking.probe.hanging.add(slug)
        trial = walking.start(walking.walks.try_version(world.token(session), "abc"))
        wait_for(lambda: walking.probe.under_way == [slug])
        deadline_at = world.session(session).deadline_at
        assert deadline_at is not None
        world.clock.jump_to(deadline_at)
        world.converge(session)
        assert not world.session(session).is_changing
        walking.probe.hanging.discard(slug)
        with pytest.raises(errors.Forbidden):
            trial.result(DEADLINE_S)
