"""Runs a pass of the daemon over a world, as tests of loops and of full disks do."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.loops import passes
from orchestrator.loops.cpu_limiter import CpuLimiter
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.reconciler import Reconciler
from tests.fakes.fleet import ImagePushesInMemory
from tests.fakes.threads import run_at_once
from tests.unit.services.world import World


def loop_specs(world: World) -> Sequence[LoopSpec]:
    deps, calls = world.deps, EngineCalls(world.deps, run_at_once)
    hosts = HostPasses(deps, world.fleet, ImagePushesInMemory(), spawn=run_at_once)
    reconciler = Reconciler(deps, world.fleet, calls, spawn=run_at_once)
    return passes.loop_specs(
        deps,
        world.proxy,
        hosts,
        reconciler,
        calls,
        CpuLimiter(deps, spawn=run_at_once),
        warn=lambda _: None,
        on_due=world.overdue.append,
    )


def run_pass(world: World, name: str) -> str:
    (spec,) = [spec for spec in loop_specs(world) if spec.name == name]
    return spec.run()
