"""Bundles that agents fetch, and versions that they upload."""

from __future__ import annotations

import pytest

from orchestrator.contract.bundles import PACKED_MAX_BYTES
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, Sha256
from orchestrator.domain.sessions.session import Session
from orchestrator.services.agents import access
from orchestrator.services.agents.bundles import bundle_for, keep_bundle
from tests.unit.services.world import RaceToWrite, World, bundle_of, digest_of


def test_the_agent_fetches_the_bundle_of_its_session(world: World) -> None:
    world.add_host()
    session = world.create_session()
    template = world.catalog.get("kanban")
    assert template is not None
    digest, data = bundle_for(world.deps, session, SandboxId("sbx_any"))
    assert (digest, data) == (template.digest, world.catalog.data(template.digest))


def test_an_app_that_is_to_be_generated_has_no_bundle_yet(world: World, session: Session) -> None:
    with pytest.raises(errors.NotFound):
        bundle_for(world.deps, session, SandboxId("sbx_any"))


def test_uploads_become_versions_and_recovery_starts_the_newest(
    world: World, session: Session
) -> None:
    for number, text in enumerate(("one", "two"), start=1):
        data = bundle_of(text, title=text)
        record = keep_bundle(world.deps, world.session(session), data, digest_of(data))
        assert (record.version, record.sha256, record.size_bytes) == (
            number,
            digest_of(data),
            len(data),
        )
        assert (record.kind, record.title) == ("static", text)
        assert world.session(session).bundle == digest_of(data)
        assert world.bundles.get(digest_of(data)) == data


def test_an_upload_that_loses_a_race_still_counts(world: World, session: Session) -> None:
    world.store = RaceToWrite(world.store, times=2)
    world.upload_bundle(session, data := bundle_of())
    assert world.session(session).bundle == digest_of(data)


def test_a_repeated_upload_is_the_same_version(world: World, session: Session) -> None:
    data = bundle_of()
    first, second = (
        keep_bundle(world.deps, world.session(session), data, digest_of(data)) for _ in range(2)
    )
    assert first == second
    assert len(world.store.bundles.list(session.id)) == 1


def test_an_upload_that_was_cut_short_is_completed_by_its_repetition(
    world: World, session: Session
) -> None:
    world.upload_bundle(session, data := bundle_of())
    world.save(session, bundle=None)  # as if we had died before the session was saved
    world.upload_bundle(session, data)
    assert world.session(session).bundle == digest_of(data)


def test_a_damaged_upload_is_refused_and_leaves_nothing(world: World, session: Session) -> None:
    data = bundle_of()
    with pytest.raises(errors.Conflict, match="damaged"):
        keep_bundle(world.deps, session, data, "0" * 64)
    assert world.store.bundles.list(session.id) == []
    with pytest.raises(errors.NotFound):
        world.bundles.get(digest_of(data))


@pytest.mark.parametrize("data", [b"", b"no archive", bundle_of(kind="ruby")])
def test_an_upload_that_is_no_bundle_is_refused(
    world: World, session: Session, data: bytes
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        keep_bundle(world.deps, session, data, digest_of(data))
    assert caught.value.code == "bundle_refused"
    assert world.session(session).bundle is None


def test_an_upload_that_is_too_large_is_refused(world: World, session: Session) -> None:
    data = bytes(PACKED_MAX_BYTES + 1)
    with pytest.raises(errors.TooLarge) as caught:
        keep_bundle(world.deps, session, data, Sha256("0" * 64))
    assert caught.value.detail["limit_bytes"] == PACKED_MAX_BYTES


def test_an_unhealthy_version_is_kept_for_its_owner_and_never_started(
    world: World, session: Session
) -> None:
    data = bundle_of("<h1>broken</h1>")
    authorized = access.authorize(world.deps, world.token(session))
    record = keep_bundle(world.deps, authorized, data, digest_of(data), healthy=False)
    assert world.store.bundles.list(session.id) == [record]
    assert world.session(session).bundle is None
