"""Runs a pass of the daemon over a world, as tests of loops and of full disks do."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.loops import passes
from orchestrator.loops.host_passes import HostPasses, Reconciler
from orchestrator.loops.loop import LoopSpec
from tests.fakes.fleet import ImagePushesInMemory
from tests.fakes.threads import ImmediateExecutor
from tests.unit.services.world import World


def loop_specs(world: World) -> Sequence[LoopSpec]:
    deps, threads = world.deps, ImmediateExecutor()
    hosts = HostPasses(deps, world.fleet, ImagePushesInMemory(), threads=threads)
    reconciler = Reconciler(deps, world.fleet, threads)
    return passes.loop_specs(
        deps, world.proxy, hosts, reconciler, warn=lambda _: None, spawn=lambda call: call()
    )


def run_pass(world: World, name: str) -> str:
    (spec,) = [spec for spec in loop_specs(world) if spec.name == name]
    return spec.run()
