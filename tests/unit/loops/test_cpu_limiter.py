"""The limits loop: an app gets its share of CPUs from READY on, whoever dies or refuses."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.cpu_limits import SETTLE, SPURT, CpuLimits
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.domain.sessions.session import Phase, Session, SessionState
from orchestrator.loops.cpu_limiter import CpuLimiter
from orchestrator.services.deps import Policy
from orchestrator.services.pool import host_life
from tests.fakes.engine import EngineInMemory, EngineWithFixedLimits
from tests.fakes.threads import Deferred, run_at_once
from tests.unit.loops.running import run_pass
from tests.unit.services.world import World, bundle_of

FAST = {"cpus": 2, "changes_cpus": True}
SHARE, START = 0.5, 2.0


class EngineWhoseDaemonDies(EngineInMemory):
    """Whoever changes a limit dies right after Docker has done it, as long as `kills` is set."""

    kills = True

    def limit_cpus(self, container_id: str, cpus: float) -> None:
        super().limit_cpus(container_id, cpus)
        if self.kills:
            raise errors.TermOver("killed")


def settle(world: World, limiter: CpuLimiter | None = None) -> str:
    """A pass once READY apps have been READY for a moment."""
    world.clock.advance(SETTLE.total_seconds())
    return limiter.run() if limiter else run_pass(world, "limits")


def limit_of(world: World, sandbox: Sandbox) -> float:
    container_id = world.sandbox(sandbox.id).container_id
    assert container_id is not None
    return world.engine.cpus[container_id]


def limit_of_app(world: World, session: Session) -> float:
    return limit_of(world, world.sandbox_of(session))


def test_a_warm_sandbox_starts_with_the_limit_of_a_start_and_keeps_it(world: World) -> None:
    world.add_host(**FAST)
    warm = world.add_warm_sandbox()
    assert limit_of(world, warm) == START
    assert run_pass(world, "limits") == ""


def test_an_app_gets_its_share_once_it_is_ready_and_not_before(world: World) -> None:
    host = world.add_host(**FAST)
    world.add_warm_sandbox()
    session = world.create_session(prompt="a tide calendar", template=None)
    world.converge(session)
    for phase in (Phase.GENERATING, Phase.DEPLOYING):
        world.report(session, phase)
        world.converge(session)
        assert run_pass(world, "limits") == ""
        assert limit_of_app(world, session) == START
    world.upload_bundle(session, bundle_of())
    world.report(session, Phase.READY)
    world.publish()
    world.converge(session)
    assert world.state(session) is SessionState.READY
    assert settle(world) == f"{host.name}: changed=1"
    assert limit_of_app(world, session) == SHARE
    assert not world.sandbox_of(session).raised
    assert run_pass(world, "limits") == ""


def test_a_cold_start_has_the_limit_of_a_start_too(world: World) -> None:
    world.add_host(**FAST)
    session = world.create_session()
    world.converge(session)
    world.start_placed()
    assert limit_of_app(world, session) == START


def test_a_change_has_it_again_while_it_is_made(world: World) -> None:
    world.add_host(**FAST)
    session = world.generate_app()
    settle(world)
    assert limit_of_app(world, session) == SHARE
    world.send_message(session)
    world.converge(session)
    assert world.state(session) is SessionState.GENERATING
    run_pass(world, "limits")
    assert limit_of_app(world, session) == START
    world.carry_out_change(session, bundle_of("blue"))
    world.publish()
    world.converge(session)
    assert world.state(session) is SessionState.READY
    settle(world)
    assert limit_of_app(world, session) == SHARE


def test_a_session_that_never_becomes_ready_loses_it_to_later_ones(world: World) -> None:
    world.add_host(**FAST)
    sessions = []
    for _ in range(2):
        world.add_warm_sandbox()
        session = world.create_session(prompt="a tide calendar", template=None)
        world.converge(session)
        world.report(session, Phase.GENERATING)
        world.converge(session)
        sessions.append(session)
    run_pass(world, "limits")
    assert [limit_of_app(world, session) for session in sessions] == [START, START]
    world.clock.advance(SPURT.total_seconds() + 1)
    run_pass(world, "limits")
    assert [limit_of_app(world, session) for session in sessions] == [SHARE, START]


def test_an_app_that_is_ended_at_once_costs_no_call(world: World) -> None:
    world.add_host(**FAST)
    session = world.run_session(world.create_session())
    assert run_pass(world, "limits") == ""
    world.request_end(session)
    world.converge(session)
    assert settle(world) == ""


def test_what_a_daemon_was_about_to_record_is_done_again_by_the_next(world: World) -> None:
    """It was killed after Docker had lowered the limit."""
    world.engine = engine = EngineWhoseDaemonDies()
    world.add_host(**FAST)
    session = world.run_session(world.create_session())
    settle(world)
    assert limit_of_app(world, session) == SHARE
    assert world.sandbox_of(session).raised
    engine.kills = False
    CpuLimiter(world.deps, spawn=run_at_once).run()
    assert not world.sandbox_of(session).raised
    assert limit_of_app(world, session) == SHARE


def test_a_sandbox_that_is_being_raised_is_recorded_first(world: World) -> None:
    """So a daemon that is killed then leaves nobody with more than the record says."""
    world.engine = EngineWhoseDaemonDies()
    world.add_host(cpus=2)
    warm = world.add_warm_sandbox()
    assert limit_of(world, warm) == SHARE, "nobody knows whether this engine can lower it"
    CpuLimiter(world.deps, spawn=run_at_once).run()
    assert limit_of(world, warm) == START
    assert world.sandbox(warm.id).raised


def test_a_host_is_tried_with_a_warm_sandbox_that_nobody_has_yet(world: World) -> None:
    host = world.add_host(cpus=2)
    first = world.add_warm_sandbox()
    run_pass(world, "limits")
    assert world.store.hosts.get(host.id).changes_cpus is True
    assert limit_of(world, first) == START
    assert limit_of(world, world.add_warm_sandbox()) == START


def test_on_an_engine_that_can_not_change_limits_nobody_ever_has_more_than_its_share(
    world: World,
) -> None:
    """As with gVisor."""
    world.engine = EngineWithFixedLimits()
    host = world.add_host(cpus=2)
    first = world.add_warm_sandbox()
    run_pass(world, "limits")
    assert world.store.hosts.get(host.id).changes_cpus is False
    assert not world.sandbox(first.id).raised
    session = world.run_session(world.create_session())
    assert settle(world) == ""
    assert set(world.engine.cpus.values()) == {SHARE}
    assert not world.sandbox_of(session).raised


def test_an_engine_is_tried_again_once_its_host_is_admitted_again(world: World) -> None:
    world.engine = engine = EngineWithFixedLimits()
    host = world.add_host(cpus=2)
    warm = world.add_warm_sandbox()
    run_pass(world, "limits")
    engine.is_fixed = False
    assert run_pass(world, "limits") == ""
    host_life.set_aside(world.deps, host, "a test said so")
    host_life.admit(world.deps, world.fleet, world.store.hosts.get(host.id))
    run_pass(world, "limits")
    assert limit_of(world, warm) == START


def test_a_limit_that_can_not_be_lowered_is_tried_again_and_again(world: World) -> None:
    world.engine = engine = EngineWithFixedLimits()
    host = world.add_host(**FAST)
    session = world.run_session(world.create_session())
    limiter = CpuLimiter(world.deps, spawn=run_at_once)
    assert settle(world, limiter) == ""
    assert world.store.hosts.get(host.id).changes_cpus is False, "nobody else is raised there"
    engine.is_fixed = False
    assert limiter.run() == "", "it is left alone for a moment"
    world.clock.advance(1.1)
    assert limiter.run() == f"{host.name}: changed=1"
    assert limit_of_app(world, session) == SHARE
    assert world.store.hosts.get(host.id).changes_cpus is True


def test_a_sandbox_that_ended_just_then_says_nothing_about_its_engine(world: World) -> None:
    world.engine = engine = EngineWithFixedLimits()
    host = world.add_host(cpus=2)
    warm = world.add_warm_sandbox()
    engine.crash(warm.id)
    run_pass(world, "limits")
    assert world.store.hosts.get(host.id).changes_cpus is None
    assert not world.sandbox(warm.id).raised


def test_hosts_that_do_not_answer_are_left_alone(world: World) -> None:
    host = world.add_host(**FAST)
    session = world.run_session(world.create_session())
    host_life.set_aside(world.deps, host, "no answer")
    assert world.store.hosts.get(host.id).state is HostState.SUSPECT
    assert settle(world) == ""
    assert limit_of_app(world, session) == START


def test_of_many_that_become_ready_at_once_one_is_lowered_after_the_other(world: World) -> None:
    world.add_host(slots=20, **FAST)
    sessions = [world.run_session(world.create_session()) for _ in range(5)]
    threads = Deferred()
    limiter = CpuLimiter(world.deps, spawn=threads)
    settle(world, limiter)
    limiter.run()
    assert len(threads.pending) == 1
    threads.run_pending()
    assert {limit_of_app(world, session) for session in sessions} == {SHARE}


@pytest.mark.parametrize("start", [0.5, 0.1])
def test_with_a_start_that_gets_no_more_nothing_is_ever_changed(world: World, start: float) -> None:
    world.policy = Policy(cpus=CpuLimits(start=start))
    world.add_host(**FAST)
    session = world.run_session(world.create_session())
    assert limit_of_app(world, session) == SHARE
    assert settle(world) == ""


def test_the_successor_of_a_move_is_raised_until_it_serves(world: World) -> None:
    world.add_host(**FAST)
    session = world.run_session(world.create_session())
    settle(world)
    other = world.add_host(**FAST)
    warm = world.add_warm_sandbox()
    claim = world.store.sandboxes.claim_successor(world.session(session), world.clock.now())
    assert claim is not None
    moving, successor = claim
    settle(world)
    assert limit_of(world, successor) == START, other.name
    world.store.sandboxes.switch(moving, world.clock.now())
    run_pass(world, "limits")
    assert limit_of(world, successor) == SHARE
    assert warm.id == successor.id
