"""Bundles that agents fetch, and versions that they upload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.contract.bundles import PACKED_MAX_BYTES
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, Sha256
from orchestrator.domain.sessions.bundles import StorageLimits
from orchestrator.domain.sessions.session import Session, SessionState, Wanted
from orchestrator.services.agents import access
from orchestrator.services.agents.bundles import bundle_for, keep_bundle
from tests.unit.services.world import RaceToWrite, World, bundle_of, digest_of

ROOM_FOR_ONE = len(bundle_of()) + 10
FULL = StorageLimits(versions=0, session_bytes=0, user_bytes=0, total_bytes=0)


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


def test_uploads_become_versions_and_recovery_starts_the_newest(world: World) -> None:
    world.add_host()
    session = world.generate_app(data=bundle_of("one", title="one"))
    world.send_message(session)
    world.converge(session)
    data = bundle_of("two", title="two")
    record = keep_bundle(world.deps, world.session(session), data, digest_of(data))
    assert (record.version, record.sha256, record.size_bytes) == (2, digest_of(data), len(data))
    assert (record.kind, record.title) == ("static", "two")
    assert world.session(session).bundle == digest_of(data)
    assert world.bundles.get(digest_of(data)) == data
    assert [version.title for version in world.store.bundles.list(session.id)] == ["one", "two"]


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


# Uploads that arrive late


def test_an_upload_authorized_before_its_session_ended_keeps_nothing(
    world: World, session: Session
) -> None:
    authorized = access.authorize(world.deps, world.token(session))
    world.request_end(session)
    world.settle(session)
    assert world.state(session) is SessionState.DESTROYED
    assert_kept_nothing(world, authorized)


def test_an_upload_whose_session_ends_while_it_is_written_keeps_nothing(
    world: World, session: Session
) -> None:
    authorized = access.authorize(world.deps, world.token(session))
    store = world.store
    world.store = RaceToWrite(store, change=lambda session: replace(session, wanted=Wanted.GONE))
    with pytest.raises(errors.Forbidden):
        keep_bundle(world.deps, authorized, bundle_of(), digest_of(bundle_of()))
    assert store.bundles.list(session.id) == []
    assert store.sessions.get(session.id).bundle is None


def test_an_upload_of_an_attempt_that_is_over_keeps_nothing(world: World, session: Session) -> None:
    authorized = access.authorize(world.deps, world.token(session))
    world.save(session, attempt=2)
    assert_kept_nothing(world, authorized)


def test_an_upload_that_arrives_after_its_change_timed_out_changes_no_version(
    world: World,
) -> None:
    world.add_host()
    app = world.generate_app(data=bundle_of("one"))
    world.send_message(app)
    world.converge(app)
    authorized = access.authorize(world.deps, world.token(app))
    world.clock.advance(601)
    world.converge(app)
    data = bundle_of("two")
    with pytest.raises(errors.Forbidden):
        keep_bundle(world.deps, authorized, data, digest_of(data))
    session = world.session(app)
    assert (session.version, session.bundle) == (1, app.bundle)
    assert [version.version for version in world.store.bundles.list(app.id)] == [1]


def assert_kept_nothing(world: World, authorized: Session) -> None:
    data = bundle_of("late")
    with pytest.raises(errors.Forbidden):
        keep_bundle(world.deps, authorized, data, digest_of(data))
    assert world.store.bundles.list(authorized.id) == []
    assert world.session(authorized).bundle is None
    with pytest.raises(errors.NotFound):
        world.bundles.size(digest_of(data))


# Who may keep a version, and how many


def test_an_assignment_keeps_one_healthy_version(world: World, session: Session) -> None:
    world.upload_bundle(session, first := bundle_of("one"))
    with pytest.raises(errors.Conflict) as caught:
        world.upload_bundle(session, bundle_of("two"))
    assert caught.value.code == "version_kept"
    assert world.session(session).bundle == digest_of(first)


def test_an_assignment_keeps_one_draft_for_each_of_its_tries(
    world: World, session: Session
) -> None:
    world.upload_bundle(session, bundle_of("one"), healthy=False)
    with pytest.raises(errors.Conflict):
        world.upload_bundle(session, bundle_of("two"), healthy=False)
    world.save(session, attempt=2)
    world.upload_bundle(session, bundle_of("two"), healthy=False)
    assert len(world.store.bundles.list(session.id)) == 2


def test_a_session_that_starts_a_template_keeps_no_version(world: World) -> None:
    world.add_host()
    world.add_warm_sandbox()
    session = world.create_session()
    world.converge(session)
    with pytest.raises(errors.Forbidden) as caught:
        world.upload_bundle(session, bundle_of())
    assert caught.value.code == "not_generating"


def test_nothing_of_an_unwanted_upload_is_read(world: World, session: Session) -> None:
    authorized = access.authorize(world.deps, world.token(session))
    world.request_end(session)
    with pytest.raises(errors.Forbidden):
        keep_bundle(world.deps, authorized, b"no archive", digest_of(b"no archive"))


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        (StorageLimits(versions=1), "session"),
        (StorageLimits(session_bytes=ROOM_FOR_ONE), "session"),
        (StorageLimits(user_bytes=ROOM_FOR_ONE), "user"),
        (StorageLimits(total_bytes=ROOM_FOR_ONE), "installation"),
    ],
    ids=["versions", "session", "user", "installation"],
)
def test_an_upload_beyond_a_limit_is_refused_and_the_next_message_says_so(
    world: World, limits: StorageLimits, scope: str
) -> None:
    world.add_host()
    app = world.generate_app()
    world.send_message(app)
    world.converge(app)
    world.policy = replace(world.policy, storage=limits)
    with pytest.raises(errors.TooLarge) as refused:
        world.upload_bundle(app, bundle_of("x" * 50))
    assert (refused.value.code, refused.value.detail["scope"]) == ("storage_quota", scope)
    assert world.session(app).bundle == app.bundle
    assert [version.version for version in world.store.bundles.list(app.id)] == [1]
    world.policy = replace(world.policy, storage=FULL)
    with pytest.raises(errors.LimitReached) as told:
        world.send_message(app)
    assert told.value.code == "storage_quota"
    with pytest.raises(errors.LimitReached):
        world.create_session(prompt="a clock of the moon", template=None)
