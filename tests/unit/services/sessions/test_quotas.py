"""The sweep: what lies in the folder of bundles, compared with what the database names."""

from __future__ import annotations

from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256
from orchestrator.services.sessions.quotas import UNNAMED_FOR, sweep_bundles
from tests.fakes import samples
from tests.unit.services.world import World, bundle_of

HOUR_S = UNNAMED_FOR.total_seconds()


def test_bytes_that_nothing_names_are_deleted_after_an_hour(world: World) -> None:
    digest = world.bundles.put(b"a process died before it wrote the record")
    world.clock.advance(HOUR_S)
    assert sweep_bundles(world.deps).deleted == 0
    world.clock.advance(1)
    assert sweep_bundles(world.deps).deleted == 1
    assert not exists(world, digest)
    assert sweep_bundles(world.deps).deleted == 0


def test_bytes_that_are_named_stay(world: World) -> None:
    world.add_host()
    app = world.generate_app()
    assert app.bundle is not None
    template = world.catalog.get("kanban")
    assert template is not None
    world.bundles.put(world.catalog.data(template.digest) or b"")
    old_template = world.bundles.put(b"a template that this release has no more")
    world.store.sessions.add(samples.session(bundle=old_template), None, max_active=9)
    world.clock.advance(2 * HOUR_S)
    assert sweep_bundles(world.deps).deleted == 0
    for digest in (app.bundle, template.digest, old_template):
        assert exists(world, digest)


def test_bytes_that_are_stored_again_during_a_sweep_stay(world: World) -> None:
    data = bundle_of()
    digest = world.bundles.put(data)
    world.clock.advance(2 * HOUR_S)
    before = world.clock.now() - UNNAMED_FOR
    assert world.bundles.stale(before) == [digest]
    world.bundles.put(data)  # an upload of equal bytes, whose record isn't written yet
    assert not world.bundles.discard(digest, before)
    assert world.bundles.get(digest) == data


def test_records_without_bytes_are_found(world: World) -> None:
    world.add_host()
    app = world.generate_app()
    assert app.bundle is not None
    assert sweep_bundles(world.deps).missing == []
    world.clock.advance(1)
    assert world.bundles.discard(app.bundle, world.clock.now())
    assert sweep_bundles(world.deps).missing == [app.bundle]


def exists(world: World, digest: Sha256) -> bool:
    try:
        world.bundles.size(digest)
    except errors.NotFound:
        return False
    return True
